"""Events are what the standard says, however the bytes were cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.protocol.sse import DONE, HEARTBEAT, Event, EventReader, EventTooLarge, encode_event

LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"data: ", b": note", b"event: tick", b"id: 7", b"id: \0",
     b"retry: 12", b"retry: x", b"unknown: 1", b"", b"", b"\xef\xbb\xbfdata: c", b"data: \xff"]
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=20).map(
    lambda parts: b"".join(line + end for line, end in parts)
)


def read(*chunks: bytes, max_bytes: int = 1 << 20) -> list[Event]:
    reader = EventReader(max_bytes)
    return [event for chunk in chunks for event in reader.feed(chunk)]


def by_the_book(stream: bytes) -> list[tuple[bytes, str, str | None]]:
    """The standard's algorithm over a whole stream, line by line."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events, data, kind, last_id = [], [], "message", None
    for line in text.split(b"\n")[:-1]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                events.append((b"\n".join(data), kind, last_id))
            data, kind = [], "message"
        elif name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value.decode() or "message"
        elif name == b"id" and b"\0" not in value:
            last_id = value.decode()
    return events


@given(STREAMS)
def test_events_are_those_of_the_standard(stream):
    assert [(e.data, e.event, e.id) for e in read(stream)] == by_the_book(stream)


@given(STREAMS, st.lists(st.integers(0, 200), max_size=8))
def test_any_cut_gives_the_same_events(stream, cuts):
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert read(*chunks) == read(stream)
    assert read(*(stream[i : i + 1] for i in range(len(stream)))) == read(stream)


@given(STREAMS, st.integers(1, 24))
def test_the_bound_does_not_depend_on_the_cut(stream, bound):
    def outcome(*chunks):
        reader, events = EventReader(bound), []
        try:
            for chunk in chunks:
                events.extend(reader.feed(chunk))
        except EventTooLarge:
            events.append("too large")
        return events

    stream += b"\n"
    assert outcome(stream) == outcome(*(stream[i : i + 1] for i in range(len(stream))))


@given(STREAMS)
def test_a_relayed_frame_reads_as_the_same_event(stream):
    for event in read(stream):
        (again,) = read(event.raw)
        assert (again.raw, again.data, again.event) == (event.raw, event.data, event.event)


def test_the_common_frame_is_relayed_byte_for_byte():
    frame = b'data: {"a": 1}\n\n'
    assert [event.raw for event in read(frame + HEARTBEAT + frame + DONE)] == [frame, frame, DONE]
    assert read(b"id: 3\n\n" + frame)[0].id == "3"


def test_lines_that_are_no_event():
    assert read(b"data: lost") == []
    assert read(b": comment\n\nevent: x\n\n") == []
    reader = EventReader()
    assert list(reader.feed(b"data: half\n")) == []
    assert reader.is_midway
    assert [event.data for event in reader.feed(b"\n")] == [b"half"]
    assert not reader.is_midway


def test_what_came_before_a_line_that_is_too_long_is_still_read():
    reader = EventReader(max_bytes=16)
    events = reader.feed(b"data: ok\n\ndata: " + b"x" * 40)
    assert next(events).data == b"ok"
    with pytest.raises(EventTooLarge):
        next(events)


def test_an_event_of_many_small_lines_is_bounded():
    with pytest.raises(EventTooLarge):
        read(b"data: x\n" * 100, max_bytes=64)


def test_a_field_goes_on_its_own_line():
    frame = encode_event(b"a\r\nb", event="tick", id="1", retry=5)
    assert frame == b"event: tick\nid: 1\nretry: 5\ndata: a\ndata: b\n\n"
    assert read(frame) == [Event(frame, b"a\nb", "tick", "1", 5)]
