"""A request's place in a trace, as W3C has it."""

import pytest

from gateway.trace import join

THEIRS = "00-" + "a" * 32 + "-" + "b" * 16


def test_a_trace_goes_on_as_its_caller_decided() -> None:
    for flags, is_sampled in (("00", False), ("01", True), ("ff", True)):
        place = join(f"{THEIRS}-{flags}", 0.5)
        assert (place.trace_id, place.parent_id) == ("a" * 32, "b" * 16)
        assert place.is_sampled == is_sampled
        assert place.span_id != place.parent_id
        assert place.header == f"00-{'a' * 32}-{place.span_id}-{'01' if is_sampled else '00'}"


@pytest.mark.parametrize("given", [f"01{THEIRS[2:]}-01", f"cc{THEIRS[2:]}-01-what.comes later"])
def test_a_later_version_is_read_as_far_as_it_is_known(given: str) -> None:
    place = join(given, 0.0)
    assert (place.trace_id, place.parent_id, place.is_sampled) == ("a" * 32, "b" * 16, True)
    assert place.header.startswith("00-")


@pytest.mark.parametrize(
    "given",
    [
        "",
        THEIRS,
        f"{THEIRS}-01-more",
        f"ff{THEIRS[2:]}-01",
        f"01{THEIRS[2:]}-01more",
        f"{THEIRS}-01x",
        f"{THEIRS}-01".upper(),
        "00-" + "0" * 32 + f"-{'b' * 16}-01",
    ],
)
def test_a_trace_begins(given: str) -> None:
    place = join(given, 1.0)
    assert (len(place.trace_id), len(place.span_id), place.parent_id) == (32, 16, "")
    assert place.trace_id != "a" * 32
    assert place.is_sampled
    assert not join(given, 0.0).is_sampled
