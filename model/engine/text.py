"""The text of one answer as it grows: nothing shown is ever taken back.

Knows how to hold back what may turn out to be the start of a stop string. Leaves out stop tokens
(`sequence`) and half characters (`Detokenizer`).
"""

from __future__ import annotations

from model.tokenizer import Detokenizer, Tokenizer


class TextStream:
    """Shows text up to the first stop string (or past it, with `include_stop`), never beyond."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: tuple[str, ...] = (),
        include_stop: bool = False,
        skip_special_tokens: bool = True,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer, skip_special_tokens, continues=True)
        self._stops = stops
        self._include_stop = include_stop
        self._held = ""
        self.stopped_by: str | None = None

    def push(self, token_id: int, may_stop: bool = True) -> str:
        """The text that is certain now. Sets `stopped_by` when a stop string is complete."""
        text = self._held + self._detokenizer.push(token_id)
        if not self._stops or not may_stop:
            self._held = ""
            return text
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, self.stopped_by = min(found, key=lambda hit: hit[0])
            self._held = ""
            return text[: at + len(self.stopped_by)] if self._include_stop else text[:at]
        certain = len(text) - max(_overlap(text, stop) for stop in self._stops)
        self._held = text[certain:]
        return text[:certain]

    def flush(self) -> str:
        """What was held back, for an answer that ends for another reason."""
        text, self._held = self._held + self._detokenizer.flush(), ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
