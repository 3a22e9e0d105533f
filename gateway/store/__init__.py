"""The store: what moves while the gateway runs, and what it must remember.

Tables and migrations, the open engine, one file of functions for each subject, and notices of what
other processes changed. It knows no request and no HTTP.
"""

from gateway.store.engine import Store

__all__ = ["Store"]
