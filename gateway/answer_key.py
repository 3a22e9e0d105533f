"""When two requests are the same one, and whether the answer cache may serve them.

The key is over everything that determines an answer; what does not is the short list `IGNORED`.
Numbers are compared as they are written: 1 and 1.0 are two keys, which costs a hit and never a
wrong one.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from gateway.call import Route
from gateway.errors import BadRequest
from model.protocol.errors import InvalidRequest
from model.protocol.shapes import read_shape

IGNORED = ("user", "stream", "stream_options", "metadata", "cache")
MAX_TEXT = 500  # characters; of longer texts an embedder reads the beginning
_MAX_AGE = re.compile(r"max-age=\"?(\d{1,9})\"?")


_WORD = re.compile(r"[^\W\u0250-\U0010ffff]+|\w")  # what has no Latin letters: by character
_TELLING = re.compile(r"\d[\d.,:]*|\b(?:not?|nor|none|never|without|cannot)\b|n['’]t\b")


class Scope(msgspec.Struct, frozen=True, array_like=True):
    """What the gateway adds to a request before it is answered, each as it was resolved."""

    route: Route
    release: str  # its fingerprint
    tenant: str
    prompt: str = ""  # id@version
    knowledge: str = ""  # store, snapshot and epoch of the index


class Controls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body's `cache`, over the header Cache-Control.

    no_cache        answer anew, and keep that
    no_store        answer anew, and keep nothing
    max_age         only an answer not older than this [s]
    only_if_cached  a kept answer or none
    """

    no_cache: bool = False
    no_store: bool = False
    max_age: Annotated[int, msgspec.Meta(ge=0)] | None = None
    only_if_cached: bool = False


class Policy(msgspec.Struct, frozen=True):
    """What a release allows. `threshold`: cosine from which a question may be another one in other
    words; None: none ever is."""

    ttl_s: float
    sampled: bool = False  # keep answers of a temperature without a seed
    threshold: float | None = None


class Question(msgspec.Struct, frozen=True):
    key: str
    is_stream: bool
    policy: Policy
    controls: Controls = Controls()
    partition: str = ""  # equal for requests that differ in the last user text's words alone
    text: str = ""  # that text; empty: never compared by meaning


def ask(
    scope: Scope, body: Mapping[str, Any], sampling: Mapping[str, Any], policy: Policy, header: str
) -> Question | None:
    """`body` as the client sent it; `sampling`: the release's defaults; `header`: Cache-Control.

    None: this request is to bypass the cache. Raises BadRequest for a `cache` that is wrong.
    """
    controls = read_controls(body.get("cache"), header)
    asked = {name: value for name, value in body.items() if name not in IGNORED}
    is_repeatable = (
        policy.sampled or scope.route == "embeddings" or _is_fixed({**sampling, **asked})
    )
    if controls.no_store or not is_repeatable:
        return None
    is_compared = policy.threshold is not None and scope.route in ("chat", "responses")
    rest, text = _without_last_text(asked) if is_compared else (asked, "")
    if len(text) > MAX_TEXT:
        text = ""
    return Question(
        key=_digest(scope, asked),
        is_stream=body.get("stream") is True,
        policy=policy,
        controls=controls,
        partition=_digest(scope, rest, *_telling(text)) if text else "",
        text=text,
    )


def is_reworded(text: str, other: str) -> bool:
    """May two texts with near vectors ask the same?

    Vectors see what two texts share, and hardly that one says "soft" where the other says "hard".
    So either all words are the same, or most of them are not: then what is near is the meaning.
    """
    words, others = (_WORD.findall(it.lower()) for it in (text, other))
    shared, all_words = set(words) & set(others), set(words) | set(others)
    return words == others or 2 * len(shared) < len(all_words)


def read_controls(fields: Any, header: str) -> Controls:
    """Unknown words of the header are ignored, as RFC 9111 has it; of the body they are refused."""
    words = {word.strip().lower() for word in header.split(",")}
    ages = [int(found[1]) for word in words if (found := _MAX_AGE.fullmatch(word))]
    said = {name: name.replace("_", "-") in words for name in ("no_cache", "no_store")}
    said["only_if_cached"] = "only-if-cached" in words
    base = Controls(**said, max_age=min(ages, default=None))
    if fields is None:
        return base
    try:
        own = read_shape(fields, Controls)
    except InvalidRequest as error:
        param = f"cache.{error.param}" if error.param else "cache"
        raise BadRequest(error.message, param=param, code=error.code) from error
    return msgspec.structs.replace(base, **{name: getattr(own, name) for name in fields})


def _is_fixed(body: Mapping[str, Any]) -> bool:
    """Would the same request be given the same answer again?"""
    return body.get("temperature") == 0 or body.get("seed") is not None


def _telling(text: str) -> list[str]:
    """Its numbers and denials, which vectors hardly see: no two texts that differ in them meet."""
    return sorted(set(_TELLING.findall(text.lower())))


def _digest(scope: Scope, body: Mapping[str, Any], *more: str) -> str:
    text = msgspec.json.encode((scope, body, more), order="deterministic")
    return hashlib.sha256(text).hexdigest()


def _without_last_text(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The body without its last user text, and that text; "" where it does not end in one."""
    for field in ("messages", "input"):
        turns = body.get(field)
        if isinstance(turns, str) and field == "input":
            return {**body, field: None}, turns
        if isinstance(turns, list) and turns and isinstance(turns[-1], dict):
            last = turns[-1]
            text = last.get("content")
            if last.get("role") == "user" and isinstance(text, str):
                return {**body, field: [*turns[:-1], {**last, "content": None}]}, text
    return body, ""
