"""What `append` has returned for is found again, whatever the disk did."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import journal
from gateway.journal import Journal, Segment, abandoned

lines = st.lists(st.binary(min_size=1, max_size=40).map(lambda b: b.hex().encode() + b"\n"))


def read_all(segment: Segment, limit: int) -> bytes:
    data = b""
    while chunk := segment.read(limit):
        data += chunk
        segment.offset += len(chunk)
    return data


@given(lines, st.integers(1, 200), st.integers(1, 100))
def test_whole_lines_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int, limit: int
) -> None:
    written = Journal(tmp_path_factory.mktemp("journal"), segment_bytes=size)
    for line in lines:
        written.append(line)
    assert written.backlog == sum(map(len, lines))
    assert b"".join(read_all(it, limit) for it in written.segments) == b"".join(lines)
    assert written.backlog == 0
    for segment in written.segments:
        segment.remove()


def test_a_living_journal_is_left_alone(tmp_path: Path) -> None:
    mine = Journal(tmp_path, segment_bytes=11)
    for line in (b"first line\n", b"second\n"):
        mine.append(line)
    assert abandoned(tmp_path) == []
    for segment in mine.segments:
        segment.close()
    second = Segment.open(mine.segments[1].path)
    assert second is not None
    assert abandoned(tmp_path) == []  # all of a process or nothing
    second.close()
    ((first, second),) = abandoned(tmp_path)
    assert abandoned(tmp_path) == []
    assert first.read(100) + second.read(100) == b"first line\nsecond\n"
    first.remove()
    second.close()
    assert len(abandoned(tmp_path)[0]) == 1


def test_a_line_torn_by_a_kill_is_the_last(tmp_path: Path) -> None:
    mine = Journal(tmp_path, segment_bytes=100)
    for line in (b"whole\n", b"tor"):
        mine.append(line)
    mine.segments[0].close()
    (tmp_path / "1-1.000001.journal").touch()  # killed before it had any room
    (empty,), (found,) = abandoned(tmp_path)
    assert (empty.size, found.size) == (0, 9)
    assert found.read(7) == b"whole\n"
    found.offset += 6
    assert found.read(100) == b"tor"


def test_a_full_disk_is_told_and_over_one_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Journal(tmp_path, segment_bytes=5)
    mine.append(b"first")

    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "posix_fallocate", refuse)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                mine.append(b"lost\n")
    assert len(list(tmp_path.iterdir())) == 1
    mine.append(b"kept\n")
    assert [it.read(100) for it in mine.segments] == [b"first", b"kept\n"]


def test_a_line_may_be_longer_than_a_segment(tmp_path: Path) -> None:
    mine = Journal(tmp_path, segment_bytes=5)
    assert mine.append(b"long enough\n").read(1) == b"long enough\n"
