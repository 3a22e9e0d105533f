"""All that follows from the config file alone. A change of the file swaps it whole; a request keeps
the one that it began with.
"""

import hashlib
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.config import Config, Local, Release, Upstream, served_name
from gateway.config_file import DEFAULT_PATH, ConfigError, Loaded
from gateway.counting import load_tokenizer
from gateway.limits import Rule, rules_of
from gateway.local import base_url
from gateway.prompt_file import Prompt, load_folder
from gateway.upstream import Target

ADAPTER = "adapter_config.json"  # in a folder as PEFT writes it
LIFECYCLE = {"deprecated", "shutdown_date", "replaced_by"}  # may change: they change no answer


class Setup(msgspec.Struct, frozen=True):
    loaded: Loaded
    config: Config
    targets: Mapping[str, Target]
    rules: Mapping[str, tuple[Rule, ...]]  # of each limit class
    prompts: Mapping[str, Prompt]  # id@version → prompt
    fingerprints: Mapping[str, str]  # of each release


def make_setup(loaded: Loaded) -> Setup:
    """Raises ConfigError for a file that it names and that cannot be read."""
    config = loaded.config
    _look_for_files(config.local or Local())
    targets = {name: make_target(name, it, config) for name, it in config.upstreams.items()}
    rules = {name: rules_of(limits) for name, limits in config.limits.items()}
    prompts = load_folder(Path(config.prompts.folder))
    for name, release in config.releases.items():
        if release.prompt and release.prompt not in prompts:
            raise ConfigError(f"releases.{name}.prompt: there is no {release.prompt!r}")
        if release.index and not (release.prompt and "context" in prompts[release.prompt].uses):
            raise ConfigError(f"releases.{name}.index: needs a prompt with a context")
    fingerprints = {name: fingerprint(it, config, prompts) for name, it in config.releases.items()}
    return Setup(loaded, config, targets, rules, prompts, fingerprints)


def _look_for_files(local: Local) -> None:
    """What the model server would not start without."""
    named = {"profile": Path(local.profile)} if local.profile else {}
    named |= {f"loras.{name}": Path(it) / ADAPTER for name, it in local.loras.items()}
    for key, path in named.items():
        if not path.is_file():
            raise ConfigError(f"local.{key}: there is no file {path}")


def fingerprint(release: Release, config: Config, prompts: Mapping[str, Prompt]) -> str:
    """Changes with whatever may change an answer of this release."""
    what = {k: v for k, v in msgspec.structs.asdict(release).items() if k not in LIFECYCLE}
    what["model"] = config.upstreams[release.upstream].model
    what["index"] = config.indexes.get(release.index)
    what["prompt"] = prompts[release.prompt].hash if release.prompt else ""
    return hashlib.sha256(msgspec.json.encode(what, order="deterministic")).hexdigest()[:16]


def make_target(name: str, upstream: Upstream, config: Config) -> Target:
    path = f"upstreams.{name}"
    headers = {key: secret.reveal() for key, secret in upstream.headers.items()}
    try:
        if key := _api_key(upstream):
            headers["authorization"] = f"Bearer {key}"
        context = ssl.create_default_context(cafile=upstream.ca_file) if upstream.ca_file else None
    except (OSError, KeyError) as error:
        raise ConfigError(f"{path}: cannot read {error}") from error
    if tokenizer := upstream.tokenizer:
        _check_tokenizer(f"{path}.tokenizer", tokenizer)
    urls = (upstream.base_url,) if isinstance(upstream.base_url, str) else upstream.base_url
    model = upstream.model
    if upstream.local and config.local is not None:
        urls = (base_url(config.local),)
        name_here = getattr(config.local, upstream.local)
        model = model or served_name(name_here)
        tokenizer = tokenizer or pulled_tokenizer(name_here)
    return Target(
        name=name,
        model=model,
        base_urls=tuple(url.rstrip("/") for url in urls),
        headers=headers,
        ssl=context,
        deadlines=upstream.deadlines,
        can_continue=upstream.can_continue,
        tokenizer=tokenizer,
        image_tokens=upstream.image_tokens,
        prices=upstream.prices,
    )


def _check_tokenizer(path: str, file: str) -> None:
    try:
        load_tokenizer(file)  # which keeps it for the requests
    except Exception as error:  # the library has none of its own
        raise ConfigError(f"{path}: cannot read {file}: {error}") from error


def pulled_tokenizer(model: str) -> str:
    """The tokenizer.json beside a model on this machine; "" when there is none."""
    home = Path(os.environ.get("GLASSGATE_HOME") or Path.home() / ".cache" / "glassgate")
    folders = (Path(model), home / "models" / model, DEFAULT_PATH.parent / model)
    return next((str(it) for folder in folders if (it := folder / "tokenizer.json").is_file()), "")


def _api_key(upstream: Upstream) -> str:
    if upstream.api_key_env:
        return os.environ[upstream.api_key_env]
    if upstream.api_key_file:
        return Path(upstream.api_key_file).read_text().strip()
    return ""
