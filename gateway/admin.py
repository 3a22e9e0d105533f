"""The admin API: JSON in, one function of the store, JSON out. The command line has the same ones.

Every route here needs the scope `admin`; `app` sees to that. Who changes something is the key that
asks; why is the body's `why`, where a reason is owed.
"""

import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from gateway import moves
from gateway.admin_store import (
    as_json,
    as_list,
    as_page,
    body_of,
    by_key,
    change,
    query_of,
    read,
    state_of,
)
from gateway.store import audit, keys, shown, teams, usage

Why = Annotated[str, Meta(min_length=1, max_length=500)]


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """A field that nobody knows is refused: in a change of the store it is a mistake."""


class Rotation(Body):
    overlap_s: Annotated[float, Meta(ge=0, le=30 * 86_400)] = 86_400.0


class TeamSettings(Body):
    limits: str = ""


class Rollback(Body):
    family: str
    why: Why
    label: str = "production"


class Promotion(Rollback, kw_only=True):
    release: str


class Weights(Body):
    family: str
    weights: dict[str, float]
    why: Why


class PromptRollback(Body):
    prompt: str
    why: Why
    label: str = "production"


class PromptLabel(PromptRollback, kw_only=True):
    version: str


class Page(Body):
    """Of a list, the youngest first; `before` is the `next` of the page before it."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    before: str = ""


class AuditPage(Page):
    subject: str = ""


class RequestsPage(Page):
    outcome: str = ""


class KeysPage(Body):
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: str = ""
    team: str = ""


class Usage(Body, kw_only=True):
    """Whose; everybody's, unless it says so."""

    key: str | None = None
    team: str | None = None
    family: str | None = None
    release: str | None = None

    @property
    def only(self) -> dict[str, str]:
        values = {name: getattr(self, name) for name in usage.DIMENSIONS}
        return {name: value for name, value in values.items() if value is not None}


class Report(Usage):
    """Days in UTC, both counted; without `since`, the present month."""

    by: usage.Dimension = "team"
    since: datetime.date | None = None
    until: datetime.date | None = None
    format: Literal["json", "csv"] = "json"


class Steps(Usage, kw_only=True):
    """`count` steps of `step` [s] from `since` [s since 1970] on; a day's minutes at most."""

    since: Annotated[int, Meta(ge=0, le=2**36)]
    step: Annotated[int, Meta(ge=1, le=usage.DAY_S)]
    count: Annotated[int, Meta(ge=1, le=1440)]


async def list_keys(request: Request) -> Response:
    page = query_of(request, KeysPage)
    found = await read(request, keys.all_keys, page.team, page.after, page.limit)
    return as_page(found, page.limit, shown.of_key)


async def create_key(request: Request) -> Response:
    new = await body_of(request, keys.NewKey)
    config, maker = state_of(request).setup.config, request.scope["principal"]
    key, text = await change(request, moves.create_key, by_key(request), config, maker, new)
    return as_json(shown.of_key(key) | {"key": text}, 201)


async def rotate_key(request: Request) -> Response:
    overlap_s = (await body_of(request, Rotation)).overlap_s
    key_id, maker = request.path_params["id"], request.scope["principal"]
    key, text = await change(request, keys.rotate, by_key(request), maker, key_id, overlap_s)
    return as_json(shown.of_key(key) | {"key": text})


async def revoke_key(request: Request) -> Response:
    key = await change(request, keys.revoke, by_key(request), request.path_params["id"])
    return as_json(shown.of_key(key))


async def list_teams(request: Request) -> Response:
    found = await read(request, teams.all_teams)
    return as_list([shown.of_team(team) for team in found])


async def put_team(request: Request) -> Response:
    limits = (await body_of(request, TeamSettings)).limits
    config, name = state_of(request).setup.config, request.path_params["name"]
    team = await change(request, moves.put_team, by_key(request), config, name, limits)
    return as_json(shown.of_team(team))


async def delete_team(request: Request) -> Response:
    await change(request, teams.delete_team, by_key(request), request.path_params["name"])
    return Response(status_code=204)


async def list_budgets(request: Request) -> Response:
    found = await read(request, usage.budgets_spent, shown.today())
    return as_list([shown.of_budget(budget, spent) for budget, spent in found])


async def put_budget(request: Request) -> Response:
    new = await body_of(request, teams.NewBudget)
    config = state_of(request).setup.config
    budget = await change(request, moves.put_budget, by_key(request), config, new)
    spent = await read(request, usage.budget_spent, budget, shown.today())
    return as_json(shown.of_budget(budget, spent))


async def list_releases(request: Request) -> Response:
    return as_list(await read(request, moves.overview, state_of(request).setup.config))


async def promote(request: Request) -> Response:
    it = await body_of(request, Promotion)
    config, by = state_of(request).setup.config, by_key(request, it.why)
    label = await change(request, moves.promote, by, config, it.family, it.label, it.release)
    return as_json(shown.of_label(label))


async def rollback(request: Request) -> Response:
    it = await body_of(request, Rollback)
    config, by = state_of(request).setup.config, by_key(request, it.why)
    label = await change(request, moves.rollback, by, config, it.family, it.label)
    return as_json(shown.of_label(label))


async def set_weights(request: Request) -> Response:
    it = await body_of(request, Weights)
    config, by = state_of(request).setup.config, by_key(request, it.why)
    shares = await change(request, moves.set_weights, by, config, it.family, it.weights)
    return as_json({it.family: shares})


async def list_prompts(request: Request) -> Response:
    return as_list(await read(request, moves.prompt_overview, state_of(request).setup.prompts))


async def show_prompt(request: Request) -> Response:
    name = request.path_params["name"]
    prompts = state_of(request).setup.prompts
    (row,) = await read(request, moves.prompt_overview, prompts, name)
    return as_json({**row, "text": prompts[name].text})


async def label_prompt(request: Request) -> Response:
    it = await body_of(request, PromptLabel)
    prompts, by = state_of(request).setup.prompts, by_key(request, it.why)
    label = await change(
        request, moves.label_prompt, by, prompts, f"{it.prompt}@{it.version}", it.label
    )
    return as_json(shown.of_prompt_label(label))


async def rollback_prompt(request: Request) -> Response:
    it = await body_of(request, PromptRollback)
    prompts, by = state_of(request).setup.prompts, by_key(request, it.why)
    label = await change(request, moves.rollback_prompt, by, prompts, it.prompt, it.label)
    return as_json(shown.of_prompt_label(label))


async def report_usage(request: Request) -> Response:
    asked = query_of(request, Report)
    since, until = asked.since or shown.today().replace(day=1), asked.until or shown.today()
    lines = await read(request, usage.report, asked.by, since, until, asked.only)
    rows = [shown.of_line(line) for line in lines]
    if asked.format == "csv":
        return Response(shown.as_csv(rows), media_type="text/csv")
    return as_list(rows)


async def report_usage_steps(request: Request) -> Response:
    it = query_of(request, Steps)
    lines = await read(request, usage.report_steps, it.since, it.step, it.count, it.only)
    return as_list([shown.of_line(line) for line in lines])


async def list_requests(request: Request) -> Response:
    page = query_of(request, RequestsPage)
    found = await read(request, usage.requests, page.outcome, page.before, page.limit)
    return as_page(found, page.limit, shown.of_row)


async def show_forecast(request: Request) -> Response:
    found = await read(request, usage.forecast_now)
    return as_json(shown.of_forecast(found))


async def list_audit(request: Request) -> Response:
    page = query_of(request, AuditPage)
    found = await read(request, audit.entries, page.subject, page.before, page.limit)
    return as_page(found, page.limit, shown.of_entry)


ROUTES = (
    ("GET", "/admin/keys", list_keys),
    ("POST", "/admin/keys", create_key),
    ("POST", "/admin/keys/{id}/rotate", rotate_key),
    ("DELETE", "/admin/keys/{id}", revoke_key),
    ("GET", "/admin/teams", list_teams),
    ("PUT", "/admin/teams/{name}", put_team),
    ("DELETE", "/admin/teams/{name}", delete_team),
    ("GET", "/admin/budgets", list_budgets),
    ("PUT", "/admin/budgets", put_budget),
    ("GET", "/admin/releases", list_releases),
    ("POST", "/admin/releases/promote", promote),
    ("POST", "/admin/releases/rollback", rollback),
    ("PUT", "/admin/releases/weights", set_weights),
    ("GET", "/admin/prompts", list_prompts),
    ("GET", "/admin/prompts/{name}", show_prompt),
    ("POST", "/admin/prompts/label", label_prompt),
    ("POST", "/admin/prompts/rollback", rollback_prompt),
    ("GET", "/admin/usage", report_usage),
    ("GET", "/admin/usage/steps", report_usage_steps),
    ("GET", "/admin/usage/forecast", show_forecast),
    ("GET", "/admin/requests", list_requests),
    ("GET", "/admin/audit", list_audit),
)
