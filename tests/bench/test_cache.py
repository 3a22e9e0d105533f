"""The shipped threshold of the semantic cache, on the committed set: wrong once in 100, at most."""

import pytest

from gateway.config import Cache
from model.weights import load_minilm
from tests.bench.cache import BOUND, look_ups, paraphrases, rates


@pytest.mark.weights
def test_few_look_ups_without_a_right_entry_are_hits_at_the_shipped_threshold() -> None:
    these = paraphrases()
    looks = look_ups(these, load_minilm("minilm").encode_texts)
    assert len(these.kept) >= 150
    assert sum(not it.has_right for it in looks) >= 400
    found = rates(looks, Cache().threshold)
    assert found.false_upper <= BOUND
    assert found.wrong == 0.0
    assert found.hits > 0.1
