"""From texts to vectors: an upstream like any other, or words hashed into a vector for tests."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Protocol

import msgspec
import numpy as np

from gateway.config import Config, Deadlines, Retries
from gateway.retrieval.arms import Vectors
from gateway.retrieval.passages import Pieces
from gateway.routing import attempts
from gateway.routing.balance import Pool
from gateway.setup import Setup
from gateway.upstream import Target, UpstreamError

BATCH = 16  # texts a request
AT_ONCE = 4  # requests, so that the embedder need not wait for us
PATIENCE_S = 120.0  # for a request of documents: chats have the right of way
MAX_PIECES = 250  # MiniLM reads 256, with two of its own
QUESTION_S = 2.0  # how long a search waits; then it goes by words alone
ONCE = Retries(per_target=0, attempts=1)


class EmbedderSilent(Exception):
    """There are no vectors now. It may be asked again."""


class Embedder(Protocol):
    """`name` is "model@release": vectors of different names are never compared."""

    name: str
    pieces: Pieces

    async def embed(self, texts: Sequence[str], *, is_question: bool = False) -> Vectors:
        """[N, D] of unit length, one for each text. Raises EmbedderSilent."""


class Embedding(msgspec.Struct):
    embedding: list[float] | str
    index: int = 0


class Reply(msgspec.Struct):
    data: list[Embedding]


class UpstreamEmbedder:
    """`release` names the family's release whose upstream `target` is."""

    def __init__(self, target: Target, release: str, pool: Pool) -> None:
        self.name = f"{target.model}@{release}"
        self.pieces = Pieces(target.tokenizer)
        self._pool = pool
        patient = Deadlines(headers=PATIENCE_S, first_token=PATIENCE_S, total=PATIENCE_S)
        self._patient = msgspec.structs.replace(target, deadlines=patient)
        quick = Deadlines(connect=QUESTION_S, total=QUESTION_S)
        self._quick = msgspec.structs.replace(target, deadlines=quick)

    async def embed(self, texts: Sequence[str], *, is_question: bool = False) -> Vectors:
        clipped = [self.pieces.clip(it, MAX_PIECES) or " " for it in texts]
        batches = [clipped[at : at + BATCH] for at in range(0, len(clipped), BATCH)]
        found = [np.zeros((0, 0), np.float32)] if not batches else []
        for at in range(0, len(batches), AT_ONCE):
            asked = (self._ask(batch, is_question) for batch in batches[at : at + AT_ONCE])
            found += await asyncio.gather(*asked)
        return np.concatenate(found)

    async def _ask(self, texts: list[str], is_question: bool) -> Vectors:
        target, retries = (self._quick, ONCE) if is_question else (self._patient, Retries())
        body = {"input": texts, "encoding_format": "base64"}
        try:
            raw = await ask(target, "/embeddings", body, self._pool, retries)
        except UpstreamError as error:
            raise EmbedderSilent(str(error)) from error
        return _vectors(raw, len(texts))


async def ask(
    target: Target, path: str, body: dict[str, Any], pool: Pool, retries: Retries
) -> bytes:
    """The body of a plain reply. Raises UpstreamError."""
    plan = attempts.Plan(targets=(target,), path=path, body=body, retries=retries)
    raw = b""
    async with aclosing(attempts.run(plan, pool, [])) as batches:
        async for frames in batches:
            raw = frames[-1].raw
    return raw


def _vectors(raw: bytes, count: int) -> Vectors:
    try:
        data = msgspec.json.decode(raw, type=Reply).data
        rows = [_row(it.embedding) for it in sorted(data, key=lambda it: it.index)]
        with np.errstate(over="ignore"):  # what is not finite is refused below
            found = np.array(rows, np.float32)
    except (msgspec.MsgspecError, ValueError) as error:
        raise EmbedderSilent(f"no embeddings: {error}") from error
    lengths = np.linalg.norm(found, axis=-1, keepdims=True)
    if found.ndim != 2 or len(found) != count or not np.isfinite(lengths).all():
        raise EmbedderSilent(f"{len(rows)} embeddings for {count} texts")
    unit: Vectors = found / np.maximum(lengths, 1e-12)
    return unit


def _row(embedding: list[float] | str) -> Any:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), "<f4")
    return embedding


class HashedWords:
    """The fake: each word adds a fixed direction, so texts that share words are near."""

    def __init__(self, dimensions: int = 64, name: str = "hashed-words@1") -> None:
        self.name = name
        self.pieces = Pieces()
        self.is_silent = False
        self._dimensions = dimensions

    async def embed(self, texts: Sequence[str], *, is_question: bool = False) -> Vectors:
        await asyncio.sleep(0)
        if self.is_silent:
            raise EmbedderSilent("told to be silent")
        found = np.array([self._vector(text) for text in texts], np.float32)
        found = found.reshape(len(texts), self._dimensions)
        unit: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit

    def _vector(self, text: str) -> Vectors:
        vector = np.full(self._dimensions, 1e-3, np.float32)
        for word in re.findall(r"\w+", text.lower()):
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
            vector += np.random.default_rng(seed).standard_normal(self._dimensions, np.float32)
        return vector


def make_embedder(setup: Setup, pool: Pool) -> Embedder | None:
    """Named by the release, which never changes: vectors must last."""
    if not setup.config.retrieval.embedder:
        return None
    release = embedding_release(setup.config)
    target = setup.targets[setup.config.releases[release].upstream]
    return UpstreamEmbedder(target, release, pool)


def embedding_release(config: Config) -> str:
    """The family's production release as the config has it: no label that moves may decide it."""
    return config.families[config.retrieval.embedder].labels["production"]
