"""Drafts by prompt lookup: what followed the last words when they came before.

Knows one sequence's tokens. Leaves out whether a draft was right: the network computes it beside
the last token, and the sampler keeps what it would have drawn anyway, so answers do not change
(Saxena, "Prompt Lookup Decoding"; for a certain draft, speculative sampling, arXiv 2302.01318, is
no more than drawing and comparing).
"""

from __future__ import annotations

NGRAM = 3  # tokens that must agree


class NgramIndex:
    """Where each run of three tokens was last followed by something."""

    def __init__(self) -> None:
        self._followed: dict[tuple[int, ...], int] = {}
        self._num_indexed = NGRAM

    def draft(self, token_ids: list[int], count: int) -> list[int]:
        """Up to `count` tokens that may follow; call it with the same, growing list."""
        for end in range(self._num_indexed, len(token_ids)):
            self._followed[tuple(token_ids[end - NGRAM : end])] = end
        self._num_indexed = max(self._num_indexed, len(token_ids))
        start = self._followed.get(tuple(token_ids[-NGRAM:]))
        return [] if start is None else token_ids[start : start + count]
