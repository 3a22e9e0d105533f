"""The scenarios that are shipped can be read, and what is wrong with one is said before it runs."""

import json
from pathlib import Path

import msgspec
import pytest

from loadtests.drive import plan
from loadtests.scenario import FOLDER, NAMES, Phase, Traffic, load
from loadtests.users import FAQ, request

SMALL = (
    'name = "s"\nabout = ""\ndrivers = { emulated = 1.0 }\n[[phases]]\nname = "a"\nseconds = 1.0\n'
)
SMALL += '[[phases.traffic]]\nuser = "chat"\n'


@pytest.mark.parametrize("name", NAMES)
def test_shipped(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.about
    assert scenario.holds
    assert (FOLDER / scenario.stack.config).is_file()
    for phase in scenario.phases:
        if not any(traffic.trace for traffic in phase.traffic):
            dues = plan(phase, 1.0, scenario.seed)
            assert dues == sorted(dues, key=lambda due: due.at)
            assert all(0 <= due.at <= phase.seconds for due in dues)


def test_all_that_are_promised_are_here() -> None:
    promised = "smoke steady burst soak long-prompts cache-friendly noisy-neighbour canary-shift"
    assert {*promised.split(), "upstream-flaps", "trace-replay"} <= set(NAMES)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("colour = 1\n", "colour"),
        ('[[holds]]\nwhat = "ok"\nphase = "b"\n', "no phase 'b'"),
        ('[[holds]]\nwhat = "ok"\nphase = "a"\nthan = "c"\n', "no phase 'c'"),
    ],
)
def test_mistakes(tmp_path: Path, more: str, complaint: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(SMALL + more)
    with pytest.raises(msgspec.ValidationError, match=complaint):
        load(str(path))


def test_traffic_of_several_tenants_is_one_stream() -> None:
    traffic = tuple(Traffic(user="chat", tenant=it, rate=5.0) for it in ("a", "b"))
    dues = plan(Phase(name="p", seconds=10.0, traffic=traffic), 1.0, 1)
    assert {due.traffic.tenant for due in dues[:10]} == {"a", "b"}
    assert [due.at for due in dues] == sorted(due.at for due in dues)


@pytest.mark.parametrize(
    "user", ["chat", "rag", "cached", "prefix", "long", "replay", "embeddings"]
)
def test_users_ask_the_same_in_every_run(user: str) -> None:
    one = request(user, "m", 3, prompt=500, output=9)
    assert one == request(user, "m", 3, prompt=500, output=9)
    body = json.loads(one.body)
    assert body["model"] == "m"
    assert one.is_stream == body.get("stream", False)
    assert one.is_welcome
    salted = request(user, "m", 3, prompt=500, output=9, salt="another run").body
    assert (one.body == salted) == (user == "cached")
    if user != "cached":
        assert one.body != request(user, "m", 4, prompt=500, output=9).body


def test_what_each_user_is_about() -> None:
    def said(user: str, number: int) -> list[str]:
        body = json.loads(request(user, "m", number, prompt=500).body)
        return [it["content"] for it in body["messages"]]

    assert {said("cached", n)[0] for n in range(99)} == set(FAQ)
    assert said("prefix", 1)[0] == said("prefix", 2)[0]
    assert len(said("replay", 1)[0]) == 500
    assert len(said("long", 1)[0]) >= 500


def test_hostile_ones_are_not_welcome() -> None:
    asked = {request("hostile", "m", n) for n in range(50)}
    assert len(asked) > 4
    assert not any(it.is_welcome for it in asked)
