"""The journal: lines in a local file, so that what happened survives a kill -9.

A segment is a file of fixed size that is allocated first and then mapped: a line is a copy into
memory that the kernel owns, safe once `append` returns but for a loss of power, and a full disk is
found out before a line is begun. What is not written yet is zeros. A process holds a lock on each
of its segments, so whoever starts later finds those of the dead. What a line says is `ledger`'s.
"""

import fcntl
import mmap
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Self

SEGMENT_BYTES = 4 << 20
SUFFIX = ".journal"


class Segment:
    """One locked file. `size` is what was written, `offset` what was read and dealt with."""

    def __init__(self, path: Path, fd: int, data: mmap.mmap | bytes, size: int) -> None:
        self.path = path
        self.size = size
        self.offset = 0
        self.num_open = 0  # requests begun here and not settled yet
        self._fd = fd
        self._data = data

    @classmethod
    def create(cls, path: Path, num_bytes: int) -> Self | None:
        """None when one that starts just now took it for abandoned. Raises OSError: no room."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if not _is_locked(fd):
            return None
        try:
            os.posix_fallocate(fd, 0, num_bytes)
            return cls(path, fd, mmap.mmap(fd, num_bytes), 0)
        except OSError:
            path.unlink()
            os.close(fd)
            raise

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """None when another process has the lock, or has just dealt with the file."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        if not _is_locked(fd):
            return None
        data = path.read_bytes().rstrip(b"\0")
        return cls(path, fd, data, len(data))

    def can_take(self, line: bytes) -> bool:
        return self.size + len(line) <= len(self._data)

    def write(self, line: bytes) -> None:
        end = self.size + len(line)
        self._data[self.size : end] = line  # type: ignore[index]
        self.size = end  # last: another thread reads up to here

    def read(self, limit: int) -> bytes:
        """Whole lines from `offset` on, at most `limit` bytes, or one line that is longer.

        What was torn by a kill is a line of its own, the last.
        """
        size = self.size
        data = self._data[self.offset : min(self.offset + limit, size)]
        if self.offset + len(data) == size:
            return data
        end = data.rfind(b"\n") + 1
        return data[:end] if end else self.read(2 * limit)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Gives up the lock, which the mapping holds too."""
        if isinstance(self._data, mmap.mmap):
            self._data.close()
        os.close(self._fd)


class Journal:
    """The segments that this process writes, oldest first; the last one is written to."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._name = f"{time.time_ns():x}-{os.getpid()}"
        self._count = 0
        self.segments = [self._start()]

    def append(self, line: bytes) -> Segment:
        """Writes the line and returns its segment. Raises OSError when there is no room for it."""
        if not self.segments[-1].can_take(line):
            self.segments.append(self._start(len(line)))
        last = self.segments[-1]
        last.write(line)
        return last

    def _start(self, num_bytes: int = 0) -> Segment:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            self._count += 1
            path = self._folder / f"{self._name}.{self._count:06}{SUFFIX}"
            if segment := Segment.create(path, max(num_bytes, self._segment_bytes)):
                return segment

    @property
    def backlog(self) -> int:
        """Bytes that nobody dealt with yet."""
        return sum(segment.size - segment.offset for segment in self.segments)


def abandoned(folder: Path) -> list[list[Segment]]:
    """What processes that are gone left, locked: of each all its segments, oldest first.

    All or none: what was begun in one segment may be settled in the next.
    """
    paths = defaultdict(list)
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        paths[path.name.partition(".")[0]].append(path)
    found = [_take(group) for group in paths.values()]
    return [segments for segments in found if segments]


def _take(paths: list[Path]) -> list[Segment]:
    segments: list[Segment] = []
    for path in paths:
        segment = Segment.open(path)
        if segment is None:  # another process lives, or deals with them
            for taken in segments:
                taken.close()
            return []
        segments.append(segment)
    return segments


def _is_locked(fd: int) -> bool:
    """Whether the file is ours now, and still there; if not, it is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:
            return True
    except BlockingIOError:
        pass
    os.close(fd)
    return False
