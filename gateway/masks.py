"""What a text may not show wherever it is logged: secrets, and what could forge a line."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_SECRET = re.compile(r"(sk-[A-Za-z0-9-]{4})[A-Za-z0-9_-]{8,}|(?<=://)[^/@\s]+(?=@)|(Bearer )\S+")


def clean(text: str) -> str:
    """Without what could forge a line, steer a terminal or open a door."""
    return _CONTROL.sub("\ufffd", _SECRET.sub(r"\1\2***", text))
