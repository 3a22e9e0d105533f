"""`python -m gateway` is the command `glassgate`."""

from gateway.cli import main

main()
