"""The parts that live as long as the process, opened in order and closed in reverse.

`Setup` is all that follows from the config file alone: a change of the file swaps it whole, and a
request keeps the one that it began with.
"""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway import releases
from gateway.config import Config, Upstream
from gateway.config_file import ConfigError, Loaded, load
from gateway.errors import ShuttingDown
from gateway.local import LocalModel, base_url
from gateway.metrics import Metrics
from gateway.releases import Traffic
from gateway.upstream import Client, Target

if TYPE_CHECKING:
    from gateway.reply import Exchange

log = logging.getLogger("glassgate")

FIXED = ("server", "local", "store", "redis", "keys")  # sections that need a restart
WATCH_S = 1.0


class Setup(msgspec.Struct, frozen=True):
    loaded: Loaded
    config: Config
    targets: Mapping[str, Target]


def make_setup(loaded: Loaded) -> Setup:
    """Raises ConfigError for a key or certificate that cannot be read."""
    config = loaded.config
    targets = {name: make_target(name, it, config) for name, it in config.upstreams.items()}
    return Setup(loaded, config, targets)


def make_target(name: str, upstream: Upstream, config: Config) -> Target:
    path = f"upstreams.{name}"
    headers = {key: secret.reveal() for key, secret in upstream.headers.items()}
    try:
        if key := _api_key(upstream):
            headers["authorization"] = f"Bearer {key}"
        context = ssl.create_default_context(cafile=upstream.ca_file) if upstream.ca_file else None
    except (OSError, KeyError) as error:
        raise ConfigError(f"{path}: cannot read {error}") from error
    urls = (upstream.base_url,) if isinstance(upstream.base_url, str) else upstream.base_url
    model = upstream.model
    if upstream.local and config.local is not None:
        urls = (base_url(config.local),)
        model = model or getattr(config.local, upstream.local)
    return Target(
        name=name,
        model=model,
        base_urls=tuple(url.rstrip("/") for url in urls),
        headers=headers,
        ssl=context,
        deadlines=upstream.deadlines,
        can_continue=upstream.can_continue,
        tokenizer=upstream.tokenizer,
        prices=upstream.prices,
    )


def _api_key(upstream: Upstream) -> str:
    if upstream.api_key_env:
        return os.environ[upstream.api_key_env]
    if upstream.api_key_file:
        return Path(upstream.api_key_file).read_text().strip()
    return ""
