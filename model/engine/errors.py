"""What an engine refuses when a request is added, as one tree.

EngineError
├── InvalidRequest     no engine of this configuration could serve it; `param` names the cause
│   ├── TooLong        prompt and answer do not fit the context or the KV pool
│   └── InvalidGrammar malformed, too large or not supported; may also end a running answer
└── QueueFull          this engine cannot take it now
"""

from __future__ import annotations


class EngineError(Exception):
    """The message is meant for the caller."""


class InvalidRequest(EngineError):
    """`param` is the name of the field in `SamplingParams` or `Request`."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class TooLong(InvalidRequest):
    """The message states both numbers."""


class InvalidGrammar(InvalidRequest):
    """The message is the compiler's."""


class QueueFull(EngineError):
    """`reason` is "requests" or "tokens": which bound of the queue is reached."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
