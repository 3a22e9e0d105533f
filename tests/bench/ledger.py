"""What the ledger costs a request, and how long its reports take over a million rows.

    python tests/bench/ledger.py [--rows 1000000] [--keys 1000] [--url postgresql://…] [--fill]

The rows are spread over 90 days, all keys and 3 families. The last line of standard output is one
JSON object; with --fill it only fills the store and prints a key that opens it.
"""

import argparse
import asyncio
import datetime
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from gateway.auth import Authenticator
from gateway.call import Call, Principal, Usage
from gateway.config import Store as StoreConfig
from gateway.ledger import Ledger
from gateway.store import Store, keys, usage
from gateway.store.audit import By
from gateway.store.keys import OPERATOR, NewKey
from gateway.store.mirror import Mirror
from gateway.store.tables import keys as key_table
from gateway.store.usage import Row

DAYS = 90
BATCH = 1000
DAY_MS = 86_400_000


def made_rows(rows: int, num_keys: int) -> Iterator[Row]:
    rng = random.Random(0)
    start = time.time_ns() // 1_000_000 - DAYS * DAY_MS
    for n in range(rows):
        at = start + n * DAYS * DAY_MS // rows
        key = rng.randrange(num_keys)
        family = rng.randrange(3)
        yield Row(
            id=f"{at:012x}{n:016x}",
            request_id=f"req-{n}",
            started_at=at,
            route="chat",
            key=f"key{key:09}",
            team=f"team{key % 50}",
            family=f"family{family}",
            release=f"family{family}-1",
            target="upstream",
            attempts=1,
            prompt_tokens=rng.randrange(2000),
            completion_tokens=rng.randrange(500),
            usage_source="upstream",
            cost=rng.randrange(10**6),
            total_us=10**6,
            finish="stop",
            outcome="ok",
        )


def add_keys(store: Store, count: int) -> str:
    """So many rows, and the text of one real key."""
    with store.begin(write=True) as connection:
        key, text = keys.create(connection, By("bench"), OPERATOR, NewKey(name="bench"))
        row = msgspec.structs.asdict(key) | {"version": 1}
        rows = [row | {"id": f"key{n:09}", "name": f"client {n}"} for n in range(count)]
        if rows:
            connection.execute(key_table.insert(), rows)
    return text


def fill(store: Store, rows: int, active: int, num_keys: int) -> str:
    """So many keys and ledger rows; the text of one real key."""
    text = add_keys(store, num_keys)
    made = made_rows(rows, active)
    while batch := list(itertools.islice(made, BATCH)):
        with store.begin(write=True) as connection:
            usage.post(connection, batch)
    return text


def timed(work: Callable[[], object], repeat: int = 5) -> float:
    """Median milliseconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e3, 2)


def report_times(store: Store) -> dict[str, float]:
    today = datetime.datetime.now(datetime.UTC).date()
    month, start = today - datetime.timedelta(days=30), today - datetime.timedelta(days=DAYS)
    with store.begin() as connection:
        times = {
            f"report_{by}_ms": timed(lambda by=by: usage.report(connection, by, month, today))
            for by in ("day", "team", "key", "family", "release")
        }
        times["report_90_days_ms"] = timed(lambda: usage.report(connection, "team", start, today))
        times["spent_ms"] = timed(lambda: usage.spent(connection, "team:team1", month))
        times["forecast_ms"] = timed(lambda: usage.forecast_now(connection))
        times["list_killed_ms"] = timed(lambda: usage.requests(connection, "killed"))
    return times


async def request_times(store: Store, folder: Path, text: str) -> dict[str, float]:
    """Microseconds that the event loop is held for one request, and rows a second behind it."""
    mirror = await Mirror.open(store)
    auth = Authenticator(mirror, {})
    looked_up = []
    for n in range(300):
        start = time.perf_counter()
        await mirror.keys.get(f"key{n * 331 % 100_000:09}")
        looked_up.append(time.perf_counter() - start)
    known = []
    for _ in range(5000):
        start = time.perf_counter()
        await auth.authenticate(f"Bearer {text}", False)
        known.append(time.perf_counter() - start)
    ledger = await Ledger.open(store, StoreConfig(journal=str(folder / "journal")))
    begun, settled = [], []
    for n in range(10_000):
        call = Call(
            f"request-{n}", "chat", {}, 100, {}, principal=Principal(key_id="k", team="t"),
            family="family1", release="family1-1", usage=Usage(100, 0, 20, "upstream"),
            finish="stop", outcome="ok",
        )  # fmt: skip
        start = time.perf_counter()
        row = ledger.begin(call, 100)
        middle = time.perf_counter()
        ledger.settle(row, call, 200)
        begun.append(middle - start)
        settled.append(time.perf_counter() - middle)
    start = time.perf_counter()
    await ledger.flush()
    rate = 10_000 / (time.perf_counter() - start)
    await ledger.close()
    samples = {"begin": begun, "settle": settled, "known_key": known, "look_up_key": looked_up}
    times = {}
    for name, values in samples.items():
        values.sort()
        times[f"{name}_p50_us"] = round(values[len(values) // 2] * 1e6, 1)
        times[f"{name}_p99_us"] = round(values[len(values) * 99 // 100] * 1e6, 1)
    return times | {"moved_rows_per_s": round(rate)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=1000, help="keys that the rows name")
    parser.add_argument("--all-keys", type=int, default=100_000)
    parser.add_argument("--url")
    parser.add_argument("--fill", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store.open(args.url or f"sqlite:///{folder / 'glassgate.db'}")
        start = time.perf_counter()
        text = fill(store, args.rows, args.keys, args.all_keys)
        filled_s = time.perf_counter() - start
        if not args.fill:
            result: dict[str, object] = {"rows": args.rows, "keys": args.all_keys}
            result |= {"active": args.keys, "fill_rows_per_s": round(args.rows / filled_s)}
            result |= report_times(store)
            result |= asyncio.run(request_times(store, folder, text))
            result["store_mb"] = round(sum(f.stat().st_size for f in folder.glob("*.db*")) / 1e6)
        store.close()
    print(text if args.fill else json.dumps(result))


if __name__ == "__main__":
    main()
