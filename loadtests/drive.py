"""The open-loop driver: sends what is due when it is due, and watches itself and the server.

One event loop. How late it was and how busy goes into the summary: a run in which the generator was
the bottleneck says nothing about the server.
"""

import asyncio
import contextlib
import os
import re
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from string import Template

import aiohttp

from loadtests.arrivals import Due, arrivals
from loadtests.client import Record, ask
from loadtests.scenario import Phase, Scenario
from loadtests.users import request

GAUGES = {  # name in the samples → names in /metrics, summed over labels and servers
    "queue": r"vllm:num_requests_waiting|glassgate_waiting",
    "cost": "glassgate_cost_usd_total",
}
MAX_IN_FLIGHT = 5000  # beyond it a phase is given up: nobody answers any more
SAMPLE_S = 0.5
MIN_SAMPLES = 10  # before a rising backlog is taken for saturation
PATIENCE = aiohttp.ClientTimeout(total=120)  # with one answer


@dataclass
class Place:
    """What is loaded: URLs by the names in `Ask.url`, where it shows metrics, its processes."""

    names: dict[str, str]
    metrics: list[str] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)


@dataclass
class Run:
    """What was seen; times in seconds, those of records on the monotonic clock."""

    scale: float
    started: float = field(default_factory=time.monotonic)
    records: list[Record] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    begins: dict[str, float] = field(default_factory=dict)  # of phases, after `started`
    cpu: dict[str, float] = field(default_factory=dict)  # of the generator: share of one core
    saturated: str = ""  # the phase that was given up


def auth(tenant: str, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    key = env.get(f"LOAD_KEY_{tenant.upper()}", env.get("LOAD_KEY", ""))
    return {"authorization": f"Bearer {key}"} if key else {}


async def drive(scenario: Scenario, place: Place, scale: float, is_search: bool = False) -> Run:
    """All phases, one after the other; each ends with its last answer.

    In a search a phase ends as soon as its backlog grows without end: `saturated` says so. Raises
    RuntimeError when what a phase begins with is refused, or nobody is there to be asked.
    """
    urls = " ".join(it.url for phase in scenario.phases for it in phase.before)
    if missing := set(Template(urls).get_identifiers()) - place.names.keys():
        raise RuntimeError(f"{scenario.name} asks ${min(missing)}, which only its own stack has")
    lines = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=lines, timeout=PATIENCE) as http:
        driver = Driver(http, place, Run(scale), is_search)
        watching = asyncio.create_task(driver.watch())
        for phase in scenario.phases:
            await driver.play(phase, scenario.seed)
            if driver.run.saturated:
                break
        watching.cancel()
    return driver.run


def plan(phase: Phase, scale: float, seed: int) -> list[Due]:
    """Everything that is due in the phase, in order."""
    streams = (
        arrivals(traffic, phase.seconds, scale, f"{seed} {phase.name} {n}")
        for n, traffic in enumerate(phase.traffic)
    )
    return sorted(chain.from_iterable(streams), key=lambda due: due.at)


@dataclass
class Driver:
    http: aiohttp.ClientSession
    place: Place
    run: Run
    is_search: bool
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def play(self, phase: Phase, seed: int) -> None:
        run, dues = self.run, plan(phase, self.run.scale, seed)
        for it in phase.before:
            url = Template(it.url).substitute(self.place.names)
            headers = auth("admin")
            async with self.http.request(it.method, url, json=it.body, headers=headers) as reply:
                if not reply.ok:
                    raise RuntimeError(f"{phase.name}: {it.method} {url}: status {reply.status}")
        begin, cpu = time.monotonic(), time.process_time()
        run.begins[phase.name] = begin - run.started
        for due in dues:
            await asyncio.sleep(max(0.0, begin + due.at - time.monotonic()))
            if self._is_saturated(run.begins[phase.name]):
                run.saturated = phase.name
                break
            user, tenant = due.traffic.user, due.traffic.tenant
            name = f"{phase.name}-{user}-{tenant}-{due.number}"
            record = Record(phase.name, user, tenant, name, begin + due.at)
            run.records.append(record)
            task = asyncio.create_task(self._send(record, due))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        else:
            await asyncio.sleep(max(0.0, begin + phase.seconds - time.monotonic()))
        run.cpu[phase.name] = (time.process_time() - cpu) / (time.monotonic() - begin)
        for task in self.tasks if run.saturated else ():
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _send(self, record: Record, due: Due) -> None:
        traffic = due.traffic
        prompt = int(due.prompt * traffic.characters) or traffic.prompt
        output = due.output or traffic.output
        salt = f"{record.phase} {self.run.started}"
        sent = request(traffic.user, traffic.family, due.number, prompt, output, salt)
        await ask(self.http, self.place.names["gateway"], sent, auth(traffic.tenant), record)

    def _is_saturated(self, since: float) -> bool:
        opened = [it["open"] for it in self.run.samples if it["t"] >= since]
        return len(self.tasks) > MAX_IN_FLIGHT or (self.is_search and is_rising(opened))

    async def watch(self) -> None:
        """Every SAMPLE_S what both sides show of themselves."""
        while True:
            self.run.samples.append(await self._sample())
            await asyncio.sleep(SAMPLE_S)

    async def _sample(self) -> dict[str, float]:
        seen = {"t": time.monotonic() - self.run.started, "open": float(len(self.tasks))}
        for url in self.place.metrics:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self.http.get(url, headers=auth("metrics")) as reply:
                    text = await reply.text()
                for name, pattern in GAUGES.items():
                    line = rf"^(?:{pattern})(?:{{.*}})? (\S+)$"
                    values = map(float, re.findall(line, text, re.MULTILINE))
                    seen[name] = seen.get(name, 0.0) + sum(values)
        return seen | {f"rss_mb_{name}": rss_mb(pid) for name, pid in self.place.pids.items()}


def is_rising(opened: list[float]) -> bool:
    """Does the number of open requests grow without end? Its last quarter against its second."""
    quarter = len(opened) // 4
    early, late = opened[quarter : 2 * quarter], opened[-quarter:]
    return len(opened) >= MIN_SAMPLES and statistics.mean(late) > 2 * statistics.mean(early) + 10


def rss_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0
