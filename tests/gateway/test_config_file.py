"""What the config file may say, and how it is refused when it says something else."""

from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from gateway.config_file import DEFAULT_PATH, ConfigError, load, parse, shown

TOWN: dict[str, Any] = {
    "upstreams": {"up": {"base_url": "http://127.0.0.1:1/v1", "model": "m"}},
    "families": {"town": {"labels": {"production": "town-1"}}},
    "releases": {"town-1": {"family": "town", "upstream": "up"}},
}


def town(section: str, name: str, **values: Any) -> dict[str, Any]:
    part = TOWN.get(section, {})
    return {**TOWN, section: {**part, name: {**part.get(name, {}), **values}}}


def test_the_shipped_file_is_good() -> None:
    config = load(DEFAULT_PATH, env={}).config
    assert config.families.keys() >= {"smollm2", "minilm"}
    assert config.server.host == "127.0.0.1"
    ours = config.upstreams["local-chat"]
    assert (ours.deadlines.headers, ours.deadlines.first_token) == (60, 60)
    assert ours.can_continue


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"sever": {}}, "sever"),
        ({"server": {"prot": 1}}, "server"),
        ({"server": {"port": "x"}}, "server.port"),
        ({"server": {"port": "99999"}}, "server.port"),
        ({"local": {"port": 65_536}}, "local.port"),
        (town("upstreams", "up", deadlines={"idel": 1}), "upstreams.up.deadlines"),
        (town("upstreams", "up", base_url=""), "upstreams.up"),
        (town("upstreams", "up", model=""), "upstreams.up.model"),
        (town("upstreams", "up", prices=[{"prompt": "NaN"}]), "upstreams.up.prices[0].prompt"),
        (
            town("upstreams", "up", prices=[{"completion": "-1"}]),
            "upstreams.up.prices[0].completion",
        ),
        (town("upstreams", "mine", local="model"), "upstreams.mine.local"),
        (town("releases", "town-1", upstream="down"), "releases.town-1.upstream"),
        (town("releases", "town-1", family="city"), "releases.town-1.family"),
        *(
            (town("upstreams", "up", prices=[{}, {"cached": it}]), "upstreams.up.prices[1].cached")
            for it in (-0.1, nan, inf, "snan")
        ),
        (
            town("families", "town", weights={"production": -1.0}),
            "families.town.weights.production",
        ),
        ({"limits": {"tight": {"cost_per_day": nan}}}, "limits.tight.cost_per_day"),
        ({"server": {"drain_s": -1}}, "server.drain_s"),
        ({"breaker": {"window_s": 0}}, "breaker.window_s"),
        ({"retries": {"attempts": 0}}, "retries.attempts"),
        *(
            ({"server": {name: 0}}, f"server.{name}")
            for name in (
                "max_body_bytes",
                "max_headers",
                "body_timeout_s",
                "heartbeat_s",
                "max_in_flight",
                "idle_timeout_s",
            )
        ),
        ({"local": {"backoff_s": 0}}, "local.backoff_s"),
        ({"redis": {"gateways": 0}}, "redis.gateways"),
        ({"store": {"retention_days": 0}}, "store.retention_days"),
        ({"traces": {"otlp": "collector:4318"}}, "traces.otlp"),
        ({"limits": {"wide": {"tokens_per_minute": 1 << 60}}}, "limits.wide.tokens_per_minute"),
        (town("upstreams", "up", deadlines={"idle": 0}), "upstreams.up.deadlines.idle"),
        *(
            (town("upstreams", "up", base_url=it), "upstreams.up.base_url")
            for it in ("127.0.0.1:8000/v1", "http://", ["http://a/v1", "b/v1"], "http://a:x/v1")
        ),
        (town("releases", "town-1", cache={"threshold": 7}), "releases.town-1.cache.threshold"),
        *(
            (town("releases", "town-1", sampling={name: value}), f"releases.town-1.sampling.{name}")
            for name, value in (("temperature", "hot"), ("top_p", 0), ("presence_penalty", nan))
        ),
        (town("families", "town", labels={"production": "no"}), "families.town.labels.production"),
        (town("families", "town", labels={}), "families.town.labels"),
        (town("families", "town", weights={"canary": 1}), "families.town"),
        (town("families", "town", fallbacks=["down"]), "families.town.fallbacks"),
        (town("families", "town", limits="tight"), "families.town.limits"),
        (town("families", "a@b"), "families.a@b"),
        (town("keys", "k"), "keys.k"),
        (town("keys", "k", sha256="0", limits="tight"), "keys.k.limits"),
    ],
)
def test_a_mistake_is_named_by_its_path(tree: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tree)
    assert str(caught.value).startswith(f"{path}:")


def test_variables_go_over_the_file_and_flags_over_variables(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[server]\nport = 1\nhost = "::1"\n[local]\nport = 2\nthreads = 3\n')
    env = {"GLASSGATE_PORT": "4", "GLASSGATE_MODEL_PORT": "5", "GLASSGATE_CONFIG": str(path)}
    loaded = load(None, {"server.port": 6, "local.threads": None}, env)
    assert (loaded.config.server.port, loaded.config.server.host) == (6, "::1")
    assert loaded.config.local is not None
    assert (loaded.config.local.port, loaded.config.local.threads) == (5, 3)
    origins = {key: it["origin"] for key, it in shown(loaded).items()}
    assert origins["server.port"] == "flag"
    assert origins["local.port"] == "GLASSGATE_MODEL_PORT"
    assert origins["local.threads"] == "file"
    assert origins["server.drain_s"] == "default"


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(
        '[upstreams.up]\nbase_url = "http://u"\nmodel = "m"\n'
        'headers = { authorization = "Bearer hush" }\n'
        '[store]\nurl = "postgresql://glass:hush@db/gate"\n'
    )
    loaded = load(path, env={})
    view = shown(loaded)
    assert view["upstreams.up.headers.authorization"]["value"] == "***"
    assert view["store.url"]["value"] == "postgresql://***@db/gate"
    assert "hush" not in repr(loaded.config.upstreams)


@pytest.mark.parametrize("text", ["[server", "\udcff"])
def test_an_unreadable_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"gateway\.toml"):
        load(path, env={})
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load(tmp_path / "nowhere.toml", env={})


def test_only_a_release_may_say_less_than_zero() -> None:
    with pytest.raises(ConfigError, match=r"releases\.town-1\.sampling\.max_tokens"):
        parse(town("releases", "town-1", sampling={"max_tokens": 9000}))
    sampling = {"presence_penalty": -1.0, "top_k": -1, "of_another_server": "warm"}
    config = parse(town("releases", "town-1", sampling=sampling))
    assert config.releases["town-1"].sampling == sampling


def test_another_local_model_goes_by_its_own_name() -> None:
    config = load(DEFAULT_PATH, {"local.model": "/somewhere/other.gguf"}, {}).config
    assert "smollm2" not in config.families
    assert config.families["other"].labels == {"production": "other-production"}
    assert config.releases["other-production"].upstream == "local-chat"
    assert config.families["minilm"] == load(DEFAULT_PATH, env={}).config.families["minilm"]
