"""Low-rank adapters under the names that clients use: where they lie, which are in memory.

At most `max_loras` are in memory. One that is asked for and not there is read again, in place of
the one that was asked for longest ago and that no request uses. All of that happens in the engine's
thread between two steps, so a batch never meets an adapter that is gone.
"""

import hmac
import logging
from collections.abc import Set
from pathlib import Path

import msgspec

from model.network.llama import Llama
from model.network.lora import Adapter
from model.server.errors import Forbidden, NotFound, Overloaded, Unauthorized
from model.weights.adapter import load_adapter

logger = logging.getLogger(__name__)


class LoraSettings(msgspec.Struct, frozen=True):
    """What the command line says of adapters."""

    modules: dict[str, Path] = {}  # name → folder
    max_loras: int = 8
    root: Path | None = None  # only folders below it may be named by clients
    admin_key: str = ""  # who may name them; without one nobody


class Adapters:
    """Those of one network; None for a machine that is emulated and has no weights to change."""

    def __init__(self, network: Llama | None, settings: LoraSettings) -> None:
        """Read what the settings name. Raises WeightsError, and ValueError without a network."""
        self._network, self._settings = network, settings
        self._loaded = network.adapters if network else {}  # the last one used is the last
        self.paths: dict[str, Path] = {}
        for name, path in settings.modules.items():
            self.add(name, path, self.read(path), frozenset())

    @property
    def max_loras(self) -> int:
        """How many may be in memory; 0 where there can be none."""
        may_come = self._settings.modules or self._settings.root
        return self._settings.max_loras if may_come else 0

    def check_admin(self, key: str) -> Path:
        """The folder below which the holder of `key` may load. Raises Forbidden, Unauthorized."""
        settings = self._settings
        if settings.root is None or not settings.admin_key:
            raise Forbidden("this server was not told to load adapters at run time")
        if not hmac.compare_digest(key.encode(), settings.admin_key.encode()):
            raise Unauthorized("loading adapters needs the admin key")
        return settings.root

    def read(self, path: Path) -> Adapter:
        """The adapter in a folder, in any thread. Raises WeightsError."""
        if self._network is None:
            raise ValueError("an emulated machine has no weights that an adapter could change")
        return load_adapter(path, self._network.config)

    def add(self, name: str, path: Path, adapter: Adapter, in_use: Set[str]) -> None:
        """Serve an adapter under a name."""
        self._make_room(in_use)
        self._loaded[name] = adapter
        self.paths[name] = path

    def prepare(self, name: str, in_use: Set[str]) -> None:
        """Have it in memory. Raises NotFound if it has been removed, Overloaded without room."""
        if name not in self.paths:
            raise NotFound(f"The adapter '{name}' is no longer served", "model", "model_not_found")
        if name in self._loaded:
            self._loaded[name] = self._loaded.pop(name)
        else:
            self.add(name, self.paths[name], self.read(self.paths[name]), in_use)

    def remove(self, name: str, in_use: Set[str]) -> None:
        """Serve it no longer. Raises Overloaded while requests use it."""
        if name in in_use:
            raise Overloaded(f"requests still use the adapter '{name}'")
        self.paths.pop(name, None)
        self._loaded.pop(name, None)

    def _make_room(self, in_use: Set[str]) -> None:
        while len(self._loaded) >= self._settings.max_loras:
            oldest = next((name for name in self._loaded if name not in in_use), None)
            if oldest is None:
                raise Overloaded("requests use as many adapters as fit into memory")
            logger.info("the adapter %s makes room", oldest)
            del self._loaded[oldest]
