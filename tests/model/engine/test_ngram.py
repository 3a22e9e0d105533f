from hypothesis import given
from hypothesis import strategies as st

from model.engine.ngram import NGRAM, NgramIndex


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), max_size=8))
def test_the_draft_is_what_followed_last_time(pieces: list[list[int]]) -> None:
    index = NgramIndex()
    token_ids: list[int] = []
    for piece in pieces:
        token_ids += piece
        tail = token_ids[-NGRAM:]
        starts = [
            end for end in range(NGRAM, len(token_ids)) if token_ids[end - NGRAM : end] == tail
        ]
        expected = token_ids[starts[-1] :][:4] if starts else []
        assert index.draft(token_ids, 4) == expected
