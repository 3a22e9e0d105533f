"""What the parts know of themselves is told when Prometheus asks."""

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway import semconv
from gateway.app import App
from gateway.store.audit import By
from gateway.store.keys import OPERATOR, NewKey, create
from gateway.store.teams import put_team

pytestmark = pytest.mark.anyio


async def told(house: Any) -> dict[str, float]:
    text = await (await house.ask("GET", "/metrics")).text()
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("glassgate_"): float(value) for name, _, value in lines}


def replicas(numbers: dict[str, float]) -> dict[str, float]:
    states = ("closed", "held", "open", "half_open")
    found = {it: numbers[f'upstream_replicas{{state="{it}",target="up"}}'] for it in states}
    return {state: count for state, count in found.items() if count}


async def test_the_ledger_is_seen_from_outside(open_house: Any) -> None:
    async with open_house() as house:
        await house.chat()
        await house.rows()
        numbers = await told(house)
        assert (numbers["ledger_rows_total"], numbers["ledger_open"]) == (1, 0)
        assert (numbers["journal_bytes"], numbers["ledger_failures_total"]) == (0, 0)
        assert numbers["ledger_torn_total"] == 0


async def test_attempts_under_way_are_seen(open_house: Any, upstream: Any, say: Any) -> None:
    go = asyncio.Event()
    upstream.pieces = [say.word("Par"), go, say.FINISH, say.DONE]
    async with open_house() as house:
        assert replicas(await told(house)) == {"closed": 1}
        reply = await house.chat(stream=True)
        numbers = await told(house)
        assert numbers['upstream_in_flight{target="up"}'] == numbers["ledger_open"] == 1
        go.set()
        await reply.read()
        assert (await told(house))['upstream_in_flight{target="up"}'] == 0


@pytest.mark.parametrize(("status", "state"), [(429, "held"), (500, "open")])
async def test_an_upstream_in_trouble_is_seen(
    open_house: Any, upstream: Any, status: int, state: str
) -> None:
    upstream.status = status
    upstream.reply_headers = {"retry-after": "30"} if status == 429 else {}
    over = {"breaker": {"failures_in_a_row": 1, "cooldown_s": 60, "cooldown_max_s": 60}}
    async with open_house(over) as house:
        await house.chat()
        assert replicas(await told(house)) == {state: 1}


RELEASE = 'family="town",release="town-1",route="chat"'
OTEL = (
    'gen_ai_operation_name="chat",gen_ai_provider_name="glassgate",gen_ai_request_model="town",'
    'gen_ai_response_model="town-1"'
)


async def test_requests_are_counted_by_what_they_ended_in(open_house: Any, upstream: Any) -> None:
    async with open_house({"retries": {"per_target": 1}}) as house:
        upstream.body["choices"][0]["finish_reason"] = "a word of the upstream's own"
        await house.chat()
        upstream.status = 500
        await house.chat()
        await house.ask("GET", "/nowhere")
        numbers = await told(house)
        well = 'family="town",finish="other",outcome="ok",release="town-1",route="chat"'
        assert numbers[f'requests_total{{{well},status="2xx"}}'] == 1
        ill = 'family="town",finish="",outcome="upstream_status",release="town-1",route="chat"'
        assert numbers[f'requests_total{{{ill},status="5xx"}}'] == 1
        for kind in ("first", "retry"):
            name = f'attempts_total{{kind="{kind}",outcome="status_5xx",target="up"}}'
            assert numbers[name] == 1
        refused = {name: count for name, count in numbers.items() if name.startswith("refused")}
        assert refused == {'refused_total{code="not_found",status="4xx"}': 1}
        durations = [f'error_type="{it}",{OTEL},route="chat"' for it in ("", "5xx")]
        name = "gen_ai_server_request_duration_seconds_count"
        assert [numbers[f"{name}{{{it}}}"] for it in durations] == [1, 1]


async def test_who_answers_for_another_is_a_fallback_from_the_first_attempt_on(
    open_house: Any,
) -> None:
    over = {
        "upstreams": {"dead": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}},
        "releases": {"town-1": {"upstream": "dead"}},
        "families": {"town": {"fallbacks": ["up"]}},
        "retries": {"per_target": 0},
        "breaker": {"failures_in_a_row": 1, "cooldown_s": 60, "cooldown_max_s": 60},
    }
    async with open_house(over) as house:
        for word in "ab":
            assert (await house.chat(user=word)).status == 200
        numbers = await told(house)
        attempts = {name: it for name, it in numbers.items() if name.startswith("attempts_total")}
        assert attempts == {
            'attempts_total{kind="first",outcome="connect",target="dead"}': 1,
            'attempts_total{kind="fallback",outcome="ok",target="up"}': 2,
        }


async def test_a_defect_has_one_name_wherever_it_is_seen(
    open_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house() as house:
        monkeypatch.setattr("gateway.chat.make_plan", None)
        replies = [await house.chat()]
        monkeypatch.setattr("gateway.releases.pick", None)
        replies.append(await house.chat())
        errors = [(it.status, (await it.json())["error"]["code"]) for it in replies]
        assert errors == [(500, "internal_error")] * 2
        numbers = await told(house)
        (admitted,) = [it for it in numbers if it.startswith("requests_total")]
        assert 'outcome="internal_error"' in admitted
        assert numbers['refused_total{code="internal_error",status="5xx"}'] == 1


async def test_a_stream_is_timed(open_house: Any, upstream: Any, say: Any) -> None:
    go = asyncio.Event()
    upstream.pieces = [say.word("Par"), go, say.word("is"), say.FINISH, say.USAGE, say.DONE]
    async with open_house() as house:
        for _ in range(2):
            reply = await house.chat(stream=True, temperature=0)
            go.set()
            await reply.read()
        numbers = await told(house)
        for name, count in (("time_to_first_token", 2), ("time_per_output_token", 1)):
            of = f'{OTEL},route="chat"'
            assert numbers[f"gen_ai_server_{name}_seconds_count{{{of}}}"] == count
        assert numbers[f"overhead_seconds_count{{{RELEASE}}}"] == 2
        assert numbers[f"chunk_gap_seconds_count{{{RELEASE}}}"] == 1
        assert numbers['stage_seconds_count{stage="cache"}'] == 2
        of = f'{OTEL},gen_ai_token_type="output",route="chat"'
        assert numbers[f"gen_ai_client_token_usage_sum{{{of}}}"] == 3


async def test_overhead_leaves_the_upstream_out(open_house: Any, upstream: Any, say: Any) -> None:
    go = asyncio.Event()
    upstream.pieces = [say.word("Par"), go, say.FINISH, say.DONE]
    async with open_house() as house:
        reply = await house.chat(stream=True)
        await asyncio.sleep(0.05)
        go.set()
        await reply.read()
        numbers = await told(house)
        total = f'gen_ai_server_request_duration_seconds_sum{{error_type="",{OTEL},route="chat"}}'
        assert numbers[f"overhead_seconds_sum{{{RELEASE}}}"] < numbers[total] - 0.05


async def test_limits_say_what_they_decided(open_house: Any) -> None:
    over = {"server": {"limits": "one"}, "limits": {"one": {"requests_per_minute": 1}}}
    async with open_house(over) as house:
        assert [(await house.chat(user=it)).status for it in "ab"] == [200, 429]
        numbers = await told(house)
        refused = 'decision="limited",kind="requests_per_minute",subject="global"'
        assert numbers[f"limit_decisions_total{{{refused}}}"] == 1
        assert numbers['limit_decisions_total{decision="granted",kind="",subject=""}'] == 1
        assert numbers['refused_total{code="rate_limit_exceeded",status="4xx"}'] == 1


async def test_a_budget_is_counted_from_its_first_refusal_on(open_house: Any) -> None:
    """Prometheus sees an increase only of a series that was there before."""
    async with open_house() as house:
        numbers = await told(house)
        for subject in ("global", "family", "team", "key"):
            for kind in ("cost_per_day", "cost_per_month"):
                series = f'decision="limited",kind="{kind}",subject="{subject}"'
                assert numbers[f"limit_decisions_total{{{series}}}"] == 0


async def test_tenants_of_the_list_are_told_by_name(open_house: Any) -> None:
    async with open_house({"metrics": {"tenants": ["team:search"]}}) as house:
        by, texts = By("test", ""), []
        await house.state.store.write(lambda it: _make_teams(it, by))
        for team in ("search", "ads"):
            new = NewKey(name=team, team=team, scopes=("infer", "metrics"))
            texts.append((await house.state.store.write(create, by, OPERATOR, new))[1])
        await house.state.mirror.refresh()
        for text in texts:
            await house.chat(headers={"authorization": f"Bearer {text}"})
        reply = await house.ask("GET", "/metrics", headers={"authorization": f"Bearer {texts[0]}"})
        lines = (await reply.text()).splitlines()
        requests = [line for line in lines if line.startswith("glassgate_tenant_requests_total")]
        assert requests == [
            'glassgate_tenant_requests_total{tenant="team:search"} 1.0',
            'glassgate_tenant_requests_total{tenant="other"} 1.0',
        ]


def _make_teams(connection: Any, by: By) -> None:
    for name in ("search", "ads"):
        put_team(connection, by, name, "")


async def test_exemplars_lead_to_the_trace(open_house: Any) -> None:
    async with open_house() as house:
        await house.chat(headers={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
        accept = {"accept": "application/openmetrics-text;version=1.0.0"}
        reply = await house.ask("GET", "/metrics", headers=accept)
        assert reply.content_type == "application/openmetrics-text"
        parsed = text_string_to_metric_families(await reply.text())  # type: ignore[no-untyped-call]
        families = {it.name: it for it in parsed}
        duration = families[semconv.DURATION.metric]
        (exemplar,) = [it.exemplar for it in duration.samples if it.exemplar]
        assert exemplar.labels == {"trace_id": "a" * 32}


async def test_a_hostile_crowd_adds_no_series(open_house: Any) -> None:
    """Straight into the application: 10^4 requests over sockets would take half a minute."""
    async with open_house({"retries": {"per_target": 0, "attempts": 1}}) as house:
        app, dice = App(house.state), random.Random(0)
        for scope, body in _crowd(random.Random(1), 50):
            await _ask(app, scope, body)
        before = set(await told(house))
        for scope, body in _crowd(dice, 10_000):
            await _ask(app, scope, body)
        assert set(await told(house)) == before


def _crowd(dice: random.Random, count: int) -> Iterator[tuple[dict[str, Any], bytes]]:
    for number in range(count):
        word = f"{dice.getrandbits(64):x}"
        path = f"/v1/{word}" if number % 5 == 0 else "/v1/chat/completions"
        headers = {
            "host": "127.0.0.1",
            "authorization": f"Bearer sk-gg-{word}",
            "x-request-id": word,
            "x-glassgate-hint": word,
        }
        body = {"model": word, "user": word, "messages": [{"role": "user", "content": word}]}
        yield (
            {
                "type": "http",
                "method": "POST" if number % 7 else word.upper(),
                "path": path,
                "query_string": b"",
                "client": ("127.0.0.1" if number % 3 else "192.0.2.1", 1),
                "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
            },
            json.dumps(body).encode(),
        )


async def _ask(app: App, scope: dict[str, Any], body: bytes) -> None:
    messages = iter([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        pass

    await app(scope, receive, send)
