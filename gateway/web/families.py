"""What the chat page offers to who looks at it: families that chat, their releases, their ways.

`/v1/models` has OpenAI's shape, which says neither which models chat nor what a release does by
itself. Nothing is shown here that an answer's headers would not show.
"""

from collections.abc import Mapping, Set
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin_store import as_json, state_of
from gateway.config import Config
from gateway.releases import PRODUCTION
from gateway.setup import Setup

Labels = Mapping[str, Mapping[str, str]]  # family → label → release


async def list_families(request: Request) -> Response:
    state = state_of(request)
    mine = request.scope["principal"].families
    found = offered(state.setup, state.mirror.labels, mine)
    return as_json({"object": "list", "data": found})


def offered(setup: Setup, labels: Labels, only: Set[str]) -> list[dict[str, Any]]:
    """The families in `only` (none: all) that chat, in the order of the config."""
    config = setup.config
    families: list[dict[str, Any]] = []
    for family in config.families:
        if (only and family not in only) or _embeds(family, config):
            continue
        known = labels.get(family, {})
        mine = [name for name, it in config.releases.items() if it.family == family]
        families.append(
            {
                "id": family,
                "production": known.get(PRODUCTION, ""),
                "releases": [_shown(name, setup, known) for name in mine],
            }
        )
    return families


def _embeds(family: str, config: Config) -> bool:
    """Does it make vectors, and no answers?"""
    mine = (it for it in config.releases.values() if it.family == family)
    is_local = any(config.upstreams[it.upstream].local == "embedder" for it in mine)
    return is_local or family == config.retrieval.embedder


def _shown(name: str, setup: Setup, labels: Mapping[str, str]) -> dict[str, Any]:
    release = setup.config.releases[name]
    prompt = setup.prompts[release.prompt].front.sampling if release.prompt else {}
    sampling = {**prompt, **release.sampling}
    return {
        "id": name,
        "labels": sorted(label for label, target in labels.items() if target == name),
        "temperature": sampling.get("temperature"),
        "max_tokens": sampling.get("max_tokens", release.default_max_tokens),
        "prompt": release.prompt,
        "index": release.index,
    }
