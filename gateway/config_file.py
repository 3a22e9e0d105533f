"""Reading gateway.toml: file, then variables, then flags, each value with its origin.

An unknown key, a wrong type or a name that nothing answers to is refused with the path of the key.
What the sections mean is in `config`; who holds the result and swaps it is in `app`.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from gateway.config import (
    NO_SAMPLING,
    Config,
    Family,
    Prompts,
    Secret,
    Section,
    Upstream,
    served_name,
)
from gateway.limits.rules import rules_of
from model.protocol.shapes import Sampled

DEFAULT_PATH = Path(__file__).parent.parent / "ops" / "gateway.toml"
VARIABLES = {
    "GLASSGATE_HOST": "server.host",
    "GLASSGATE_PORT": "server.port",
    "GLASSGATE_MODEL_PORT": "local.port",
    "GLASSGATE_THREADS": "local.threads",
    "GLASSGATE_STORE_URL": "store.url",  # these hold passwords, which have no place in a file
    "GLASSGATE_CACHE_REDIS_URL": "answer_cache.redis_url",
    "GLASSGATE_REDIS_URL": "redis.url",
}
NUMBERS = {
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "min_tokens",
}  # of a sampling, the same everywhere; the rest is the upstream's to judge
NO_URL = "needs a URL such as http://10.0.0.1:8000/v1"
_PASSWORD = re.compile(r"(?<=://)[^/@]*(?=@)")


class ConfigError(Exception):
    """The message begins with the path of the offending key."""


class Loaded(msgspec.Struct, frozen=True):
    config: Config
    path: Path
    flags: Mapping[str, object]  # as given, to read the file again
    origins: dict[str, str]  # path of a key → "file", a variable or a flag; absent = default


def load(
    path: Path | None = None, flags: Mapping[str, object] = {}, env: Mapping[str, str] = os.environ
) -> Loaded:
    """Read `path` (else the shipped file), lay variables and then `flags` (path → value) over it.

    Raises ConfigError with the path of the key, or of the file when it cannot be read.
    """
    path = path or Path(env.get("GLASSGATE_CONFIG", DEFAULT_PATH))
    try:
        tree = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    origins = {key: "file" for key, _ in _leaves(tree)}
    given = dict(tree.get("local", {}))
    over: dict[str, tuple[object, str]] = {
        key: (env[name], name) for name, key in VARIABLES.items() if env.get(name)
    }
    over |= {key: (value, "flag") for key, value in flags.items() if value is not None}
    for key, (value, origin) in over.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
        origins[key] = origin
    _rename_families(tree, given)
    config = parse(tree)
    prompts = Prompts(folder=str(path.parent / config.prompts.folder))
    config = msgspec.structs.replace(config, prompts=prompts)
    return Loaded(config, path, flags, origins)


def _rename_families(tree: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Another local model than the file's goes by its own name, and so do its releases."""
    families, releases = tree.get("families", {}), tree.get("releases", {})
    for field in ("model", "embedder"):
        old = served_name(given.get(field, ""))
        new = served_name(tree.get("local", {}).get(field, ""))
        if not new or new in families or old not in families:
            continue
        if tree.get("retrieval", {}).get("embedder") == old:
            tree["retrieval"]["embedder"] = new
        family = families.pop(old)
        named = {name: f"{new}-{label}" for label, name in family.get("labels", {}).items()}
        families[new] = {**family, "labels": {k: named[v] for k, v in family["labels"].items()}}
        for name in [name for name, it in releases.items() if it.get("family") == old]:
            release = releases.pop(name)
            if name in named:
                releases[named[name]] = {**release, "family": new}


def parse(tree: Mapping[str, Any]) -> Config:
    """A nested dict as Config. Raises ConfigError."""
    types = msgspec.structs.fields(Config)
    unknown = tree.keys() - {field.name for field in types}
    if unknown:
        raise ConfigError(f"{min(unknown)}: unknown section")
    sections = {f.name: _section(f.name, tree[f.name], f.type) for f in types if f.name in tree}
    config = Config(**sections)
    for key, complaint in _contradictions(config):
        raise ConfigError(f"{key}: {complaint}")
    return config


def _section(path: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) is dict and isinstance(value, dict):
        item = get_args(kind)[1]
        return {name: _section(f"{path}.{name}", one, item) for name, one in value.items()}
    try:
        # Variables and flags are text, hence not strict: "8080" is a port.
        return msgspec.convert(value, kind, strict=False, dec_hook=_hook)
    except msgspec.ValidationError as error:
        where, complaint = _said(error)
        raise ConfigError(f"{path}{where}: {complaint}") from error


def _said(error: msgspec.ValidationError) -> tuple[str, str]:
    """Where, as a path that begins with a dot, and what."""
    complaint, _, where = str(error).partition(" - at `$")
    return where.rstrip("`"), complaint


def _hook(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError(f"cannot read {type(value).__name__}")


def _contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """Names that nothing answers to and values that exclude each other: path, complaint."""
    yield from _out_of_bounds(config)
    for path, section, name in _references(config):
        if name and name not in getattr(config, section):
            yield path, f"there is no {section}.{name}"
    for name, upstream in config.upstreams.items():
        yield from _in_upstream(config, f"upstreams.{name}", upstream)
    for name, family in config.families.items():
        yield from _in_family(config, name, family)
    if config.traces.otlp and not _is_url(config.traces.otlp):
        yield "traces.otlp", NO_URL
    for name, key in config.keys.items():
        if bool(key.sha256) == bool(key.env):
            yield f"keys.{name}", "needs either sha256 or env"


def _out_of_bounds(config: Config) -> Iterator[tuple[str, str]]:
    """What a bound beside the field in `config` cannot say."""
    for path in _no_amounts(config, ""):
        yield path, "needs a number from 0 on"
    for name, release in config.releases.items():
        for where, complaint in in_sampling(release.sampling):
            yield f"releases.{name}.sampling{where}", complaint
    for name, limits in config.limits.items():
        try:
            rules_of(limits)
        except ValueError as error:
            kind, _, complaint = str(error).partition(": ")
            yield f"limits.{name}.{kind}", complaint


def _no_amounts(value: Any, path: str) -> Iterator[str]:
    """Paths of the numbers that are negative or infinite; a sampling's may be."""
    if isinstance(value, Section):
        for field in value.__struct_fields__:
            if field != "sampling":
                yield from _no_amounts(getattr(value, field), f"{path}.{field}" if path else field)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _no_amounts(one, f"{path}.{name}")
    elif isinstance(value, tuple):
        for i, one in enumerate(value):
            yield from _no_amounts(one, f"{path}[{i}]")
    elif isinstance(value, int | float | Decimal) and not (
        Decimal(value).is_finite() and value >= 0
    ):
        yield path


def in_sampling(sampling: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong in it: a path that begins with a dot, a complaint."""
    for name in NO_SAMPLING & sampling.keys():
        yield f".{name}", "is no sampling (see a release's default_max_tokens)"
    try:
        numbers = {name: sampling[name] for name in NUMBERS & sampling.keys()}
        msgspec.convert({"model": "", **numbers}, Sampled)
    except msgspec.ValidationError as error:
        yield _said(error)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _references(config: Config) -> Iterator[tuple[str, str, str]]:
    """Every mention of a name: where, the section that must have it, the name ("" = none)."""
    yield "server.limits", "limits", config.server.limits
    yield "server.key_limits", "limits", config.server.key_limits
    yield "retrieval.embedder", "families", config.retrieval.embedder
    for name, key in config.keys.items():
        yield f"keys.{name}.limits", "limits", key.limits
    for name, index in config.indexes.items():
        yield f"indexes.{name}.rerank", "families", index.rerank
    for name, release in config.releases.items():
        yield f"releases.{name}.family", "families", release.family
        yield f"releases.{name}.upstream", "upstreams", release.upstream
        yield f"releases.{name}.index", "indexes", release.index
    for name, family in config.families.items():
        yield f"families.{name}.limits", "limits", family.limits
        yield f"families.{name}.context_fallback", "upstreams", family.context_fallback
        for upstream in family.fallbacks:
            yield f"families.{name}.fallbacks", "upstreams", upstream


def _in_upstream(config: Config, path: str, upstream: Upstream) -> Iterator[tuple[str, str]]:
    if bool(upstream.local) == bool(upstream.base_url):
        yield path, "needs either base_url or local"
    if upstream.local and config.local is None:
        yield f"{path}.local", "there is no [local] section"
    urls = upstream.base_url
    if urls and not all(map(_is_url, (urls,) if isinstance(urls, str) else urls)):
        yield f"{path}.base_url", NO_URL
    if upstream.base_url and not upstream.model:
        yield f"{path}.model", "is missing"


def _in_family(config: Config, name: str, family: Family) -> Iterator[tuple[str, str]]:
    path = f"families.{name}"
    mine = {release for release, it in config.releases.items() if it.family == name}
    if "@" in name:
        yield path, "a family's name has no @"
    if "production" not in family.labels:
        yield f"{path}.labels", "needs production"
    for label, release in family.labels.items():
        if release not in mine:
            yield f"{path}.labels.{label}", f"no release {release!r} in this family"
    for target in [*family.weights, *(rule.use for rule in family.rules)]:
        if target not in mine | family.labels.keys():
            yield path, f"neither label nor release: {target!r}"


def shown(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """Path of each key → its value, secrets masked, and where it comes from."""
    tree = msgspec.to_builtins(loaded.config, enc_hook=_mask)
    return {
        key: {"value": _without_password(value), "origin": loaded.origins.get(key, "default")}
        for key, value in _leaves(tree)
    }


def _mask(value: Any) -> Any:
    if isinstance(value, Secret):
        return repr(value)
    raise NotImplementedError


def _without_password(value: Any) -> Any:
    return _PASSWORD.sub("***", value) if isinstance(value, str) else value


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
