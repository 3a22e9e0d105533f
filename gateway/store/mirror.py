"""What moves, as one process sees it: small tables whole, keys as they are asked for.

The request path reads plain dicts and waits for nothing. A task keeps them within a second of the
store; while the store is silent, they stay as they are.
"""

import asyncio
import logging
from contextlib import aclosing
from typing import Self

from gateway.store.changes import follow
from gateway.store.engine import Store
from gateway.store.key_cache import KeyCache
from gateway.store.labels import all_labels, all_weights
from gateway.store.teams import Budget, Team, all_budgets, all_teams

log = logging.getLogger(__name__)

RETRY_S = 1.0
FLUSH_S = 30.0  # between two writings of when keys were last used


class Mirror:
    """Made by `open`; `run` is a task of the gateway's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reading = asyncio.Lock()  # two at once could end in the other order, the old one last
        self.keys = KeyCache(store)
        self.labels: dict[str, dict[str, str]] = {}  # family → label → release
        self.prompt_labels: dict[str, dict[str, str]] = {}  # prompt → label → version
        self.weights: dict[str, dict[str, float]] = {}  # family → label → share
        self.teams: dict[str, Team] = {}
        self.budgets: dict[str, list[Budget]] = {}  # subject → day's and month's

    @classmethod
    async def open(cls, store: Store) -> Self:
        mirror = cls(store)
        await mirror.refresh()
        return mirror

    async def refresh(self, topics: set[str] | None = None) -> None:
        """Reads the topics again; None = all."""
        for topic, read in (
            ("keys", self.keys.refresh),
            ("labels", self._read_labels),
            ("weights", self._read_weights),
            ("teams", self._read_teams),
            ("budgets", self._read_budgets),
        ):
            if topics is None or topic in topics:
                async with self._reading:
                    await read()

    async def _read_labels(self) -> None:
        found: dict[str, dict[str, dict[str, str]]] = {"release": {}, "prompt": {}}
        for label in await self._store.read(all_labels):
            found[label.kind].setdefault(label.owner, {})[label.label] = label.target
        self.labels, self.prompt_labels = found["release"], found["prompt"]

    async def _read_weights(self) -> None:
        self.weights = await self._store.read(all_weights)

    async def _read_teams(self) -> None:
        self.teams = {team.name: team for team in await self._store.read(all_teams)}

    async def _read_budgets(self) -> None:
        found: dict[str, list[Budget]] = {}
        for budget in await self._store.read(all_budgets):
            found.setdefault(budget.subject, []).append(budget)
        self.budgets = found

    async def run(self) -> None:
        """Follows the store until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                tasks.create_task(self._flush_now_and_then())
        finally:
            await self._flush()

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(follow(self._store)) as changes:
                    async for topics in changes:
                        await self.refresh(topics)
            except self._store.errors as error:
                log.warning("the store cannot be watched: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _flush_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self._flush()

    async def _flush(self) -> None:
        try:
            await self.keys.flush()
        except self._store.errors as error:
            log.warning("when keys were last used cannot be written: %s", error)
