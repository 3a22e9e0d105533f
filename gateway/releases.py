"""Which release answers a request: families, labels, weights, pins, rules.

Definitions come from the config; labels and weights move in the store, and what is written in the
config only seeds them. A release never changes under its name: its fingerprint tells.
"""

import datetime
import email.utils
import hashlib
import random
from collections.abc import Mapping, Set
from typing import Any

from gateway.auth import require_family
from gateway.call import Call
from gateway.config import Config, Family, Release
from gateway.counting import estimate, prompt_bound
from gateway.errors import BadRequest, Forbidden, NotFound
from gateway.setup import Setup
from gateway.store.mirror import Mirror

PRODUCTION = "production"


def changed(old: Setup, new: Setup) -> list[str]:
    """Releases of the same name that are not the same: a reason to refuse `new`."""
    both = old.config.releases.keys() & new.config.releases.keys()
    return sorted(name for name in both if old.fingerprints[name] != new.fingerprints[name])


async def pick(call: Call, setup: Setup, mirror: Mirror) -> None:
    """Write family, release and how it was found into `call`.

    Raises NotFound for a family or release that nobody knows, Forbidden without the right to it.
    """
    config = setup.config
    name, _, pin = call.body["model"].partition("@")
    family = config.families.get(name)
    if family is None:
        raise unknown(call.body["model"])
    require_family(call.principal, name)
    call.family = name
    labels = mirror.labels.get(name, {})
    if pin := _pin(call, pin):
        target, call.picked_by = pin, "pin"
    else:
        if family.rules:
            await _measure(call, setup, labels.get(PRODUCTION, ""))
        target, call.picked_by = _choose(call, family, mirror.weights.get(name, {}))
    call.release = labels.get(target, target)
    release = config.releases.get(call.release)
    if release is None or release.family != name:
        raise unknown(f"{name}@{target}")
    call.reply_headers += answer_headers(call.release, release, call.picked_by)


def unknown(model: str) -> NotFound:
    return NotFound(f"The model {model!r} does not exist", param="model", code="model_not_found")


def _pin(call: Call, in_model: str) -> str:
    in_header = call.headers.get("x-glassgate-release", "")
    if in_model and in_header and in_model != in_header:
        raise BadRequest("model and x-glassgate-release pin different releases", param="model")
    pin = in_model or in_header
    if pin and "pin" not in call.principal.scopes:
        raise Forbidden("this key may not pin a release", param="model")
    return pin


async def _measure(call: Call, setup: Setup, release: str) -> None:
    """The length that rules ask for, as the production release counts."""
    target = setup.targets[setup.config.releases[release].upstream]
    call.prompt_tokens = estimate(await prompt_bound(call, target), bool(target.tokenizer))


def _choose(call: Call, family: Family, weights: Mapping[str, float]) -> tuple[str, str]:
    hint = call.headers.get("x-glassgate-hint")
    for rule in family.rules:
        if (
            (rule.hint is None or rule.hint == hint)
            and (rule.prompt_below is None or call.prompt_tokens < rule.prompt_below)
            and (rule.prompt_above is None or call.prompt_tokens > rule.prompt_above)
        ):
            return rule.use, "rule"
    if not any(weights.values()):
        return PRODUCTION, "default"
    user = call.body.get("user") or call.headers.get("x-session-id")
    if family.sticky and user:
        digest = hashlib.sha256(f"{call.family}\0{call.principal.key_id}\0{user}".encode()).digest()
        return share_of(weights, int.from_bytes(digest[:7]) / (1 << 56)), "sticky"
    return share_of(weights, random.random()), "weight"  # noqa: S311 - nobody gains by guessing it


def share_of(weights: Mapping[str, float], point: float) -> str:
    """Who owns `point` of [0, 1). Production comes last, so that a canary that grows keeps who it
    has."""
    order = sorted(weights, key=lambda name: (name == PRODUCTION, name))
    total = sum(weights.values())
    for name in order:
        point -= weights[name] / total
        if point < 0:
            return name
    return order[-1]


def answer_headers(name: str, release: Release, picked_by: str) -> list[tuple[str, str]]:
    """Which release it is, and how long there will be one (RFC 9745, RFC 8594)."""
    headers = [("x-glassgate-release", name), ("x-glassgate-picked-by", picked_by)]
    if release.deprecated:
        headers.append(("deprecation", f"@{int(_midnight(release.deprecated).timestamp())}"))
    if release.shutdown_date:
        date = email.utils.format_datetime(_midnight(release.shutdown_date), usegmt=True)
        headers.append(("sunset", date))
    return headers


def _midnight(day: datetime.date) -> datetime.datetime:
    return datetime.datetime.combine(day, datetime.time(), datetime.UTC)


def model_list(config: Config, mirror: Mirror, only: Set[str]) -> list[dict[str, Any]]:
    """The families in `only` (none: all), and their releases as family@release, as OpenAI lists."""
    models: list[dict[str, Any]] = []
    for family in (it for it in config.families if not only or it in only):
        labels = mirror.labels.get(family, {})
        mine = {name: it for name, it in config.releases.items() if it.family == family}
        serving = labels.get(PRODUCTION, "")
        models.append({**_entry(family), "release": serving, "labels": dict(labels)})
        for name, release in mine.items():
            more: dict[str, Any] = {"family": family}
            if release.shutdown_date:
                more["shutdown_date"] = release.shutdown_date.isoformat()
            if release.deprecated:
                more["deprecated"] = release.deprecated.isoformat()
            if release.replaced_by:
                more["replaced_by"] = release.replaced_by
            models.append({**_entry(f"{family}@{name}"), **more})
    return models


def _entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "glassgate"}
