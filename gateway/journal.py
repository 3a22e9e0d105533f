"""The journal: lines appended to a local file, so that what happened survives a kill -9.

One write a line and no fsync: a line is safe once `append` returns, but for a loss of power. Files
are segments of bounded size; a process holds a lock on each of its own, so whoever starts later
finds the segments of those that died. What a line says is `ledger`'s.
"""

import fcntl
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Self

SEGMENT_BYTES = 16 << 20
SUFFIX = ".journal"


class Segment:
    """One open, locked file. `size` is what was written, `offset` what was read and dealt with."""

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.path = path
        self.size = size
        self.offset = 0
        self.num_open = 0  # requests begun here and not settled yet
        self.is_sealed = False  # nothing more will be written
        self._fd = fd

    @classmethod
    def open(cls, path: Path, flags: int = 0) -> Self | None:
        """None when another process has the lock, or has just dealt with the file."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | flags, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stat = os.fstat(fd)
        except BlockingIOError:
            os.close(fd)
            return None
        if stat.st_nlink == 0:
            os.close(fd)
            return None
        return cls(path, fd, stat.st_size)

    def write(self, line: bytes) -> None:
        """Raises OSError; part of the line may have been written then."""
        written = os.write(self._fd, line)
        self.size += written
        if written < len(line):
            raise OSError(f"{self.path}: the disk is full")

    def read(self, limit: int) -> bytes:
        """Whole lines from `offset` on, at most `limit` bytes, or one line that is longer."""
        is_whole = self.is_sealed  # asked first: what is written later must not look torn
        data = os.pread(self._fd, limit, self.offset)
        if len(data) < limit and is_whole:
            return data
        end = data.rfind(b"\n") + 1
        return self.read(2 * limit) if not end and len(data) == limit else data[:end]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Gives up the lock."""
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
        """Writes the line and returns its segment. Raises OSError when no file takes it."""
        last = self.segments[-1]
        if not last.is_sealed and last.size < self._segment_bytes:
            try:
                last.write(line)
            except OSError:
                pass  # this file cannot grow: another may
            else:
                return last
        last.is_sealed = True
        fresh = self._start()
        try:
            fresh.write(line)
        except OSError:
            fresh.remove()
            raise
        self.segments.append(fresh)
        return fresh

    def _start(self) -> Segment:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            self._count += 1
            path = self._folder / f"{self._name}.{self._count:06}{SUFFIX}"
            segment = Segment.open(path, os.O_CREAT | os.O_EXCL)
            if segment is not None:  # else one that starts just now took it for abandoned
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
        segment.is_sealed = True
        segments.append(segment)
    return segments
