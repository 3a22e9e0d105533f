"""The admin API: JSON in, one function of the store, JSON out. The command line has the same ones.

Every route here needs the scope `admin`; `app` sees to that. Who changes something is the key that
asks; why is the body's `why`, where a reason is owed. A change is in force here when the answer is
sent, and on other replicas within a second.
"""

import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar

import msgspec
import sqlalchemy as sa
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from gateway import moves
from gateway.errors import BadRequest, Unavailable
from gateway.reply import read_body
from gateway.state import State
from gateway.store import audit, keys, shown, teams, usage
from gateway.store.audit import By
from model.protocol.errors import InvalidRequest
from model.protocol.shapes import explain, read_object, read_shape

B = TypeVar("B", bound=msgspec.Struct)
P = ParamSpec("P")
T = TypeVar("T")
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


class Report(Body):
    """Days in UTC, both counted; without `since`, the present month."""

    by: usage.Dimension = "team"
    since: datetime.date | None = None
    until: datetime.date | None = None
    key: str | None = None
    team: str | None = None
    family: str | None = None
    release: str | None = None
    format: Literal["json", "csv"] = "json"


async def list_keys(request: Request) -> Response:
    page = _query(request, KeysPage)
    found = await _read(request, keys.all_keys, page.team, page.after, page.limit)
    return _page(found, page.limit, shown.of_key)


async def create_key(request: Request) -> Response:
    new = await _body(request, keys.NewKey)
    config, maker = _state(request).setup.config, request.scope["principal"]
    key, text = await _change(request, moves.create_key, _by(request), config, maker, new)
    return _json(shown.of_key(key) | {"key": text}, 201)


async def rotate_key(request: Request) -> Response:
    overlap_s = (await _body(request, Rotation)).overlap_s
    key_id, maker = request.path_params["id"], request.scope["principal"]
    key, text = await _change(request, keys.rotate, _by(request), maker, key_id, overlap_s)
    return _json(shown.of_key(key) | {"key": text})


async def revoke_key(request: Request) -> Response:
    key = await _change(request, keys.revoke, _by(request), request.path_params["id"])
    return _json(shown.of_key(key))


async def list_teams(request: Request) -> Response:
    found = await _read(request, teams.all_teams)
    return _list([shown.of_team(team) for team in found])


async def put_team(request: Request) -> Response:
    limits = (await _body(request, TeamSettings)).limits
    config, name = _state(request).setup.config, request.path_params["name"]
    team = await _change(request, moves.put_team, _by(request), config, name, limits)
    return _json(shown.of_team(team))


async def delete_team(request: Request) -> Response:
    await _change(request, teams.delete_team, _by(request), request.path_params["name"])
    return Response(status_code=204)


async def list_budgets(request: Request) -> Response:
    found = await _read(request, usage.budgets_spent, shown.today())
    return _list([shown.of_budget(budget, spent) for budget, spent in found])


async def put_budget(request: Request) -> Response:
    new = await _body(request, teams.NewBudget)
    budget = await _change(request, teams.put_budget, _by(request), new)
    spent = await _read(request, usage.budget_spent, budget, shown.today())
    return _json(shown.of_budget(budget, spent))


async def list_releases(request: Request) -> Response:
    return _list(await _read(request, moves.overview, _state(request).setup.config))


async def promote(request: Request) -> Response:
    it = await _body(request, Promotion)
    config, by = _state(request).setup.config, _by(request, it.why)
    label = await _change(request, moves.promote, by, config, it.family, it.label, it.release)
    return _json(shown.of_label(label))


async def rollback(request: Request) -> Response:
    it = await _body(request, Rollback)
    config, by = _state(request).setup.config, _by(request, it.why)
    label = await _change(request, moves.rollback, by, config, it.family, it.label)
    return _json(shown.of_label(label))


async def set_weights(request: Request) -> Response:
    it = await _body(request, Weights)
    config, by = _state(request).setup.config, _by(request, it.why)
    shares = await _change(request, moves.set_weights, by, config, it.family, it.weights)
    return _json({it.family: shares})


async def report_usage(request: Request) -> Response:
    asked = _query(request, Report)
    since, until = asked.since or shown.today().replace(day=1), asked.until or shown.today()
    values = {name: getattr(asked, name) for name in usage.DIMENSIONS}
    only = {name: value for name, value in values.items() if value is not None}
    lines = await _read(request, usage.report, asked.by, since, until, only)
    rows = [shown.of_line(line) for line in lines]
    if asked.format == "csv":
        return Response(shown.as_csv(rows), media_type="text/csv")
    return _list(rows)


async def list_requests(request: Request) -> Response:
    page = _query(request, RequestsPage)
    found = await _read(request, usage.requests, page.outcome, page.before, page.limit)
    return _page(found, page.limit, shown.of_row)


async def show_forecast(request: Request) -> Response:
    found = await _read(request, usage.forecast_now)
    return _json(shown.of_forecast(found))


async def list_audit(request: Request) -> Response:
    page = _query(request, AuditPage)
    found = await _read(request, audit.entries, page.subject, page.before, page.limit)
    return _page(found, page.limit, shown.of_entry)


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
    ("GET", "/admin/usage", report_usage),
    ("GET", "/admin/usage/forecast", show_forecast),
    ("GET", "/admin/requests", list_requests),
    ("GET", "/admin/audit", list_audit),
)


def _state(request: Request) -> State:
    state: State = request.app.state
    return state


def _by(request: Request, why: str = "") -> By:
    return By(f"key:{request.scope['principal'].key_id}", why)


async def _body(request: Request, shape: type[B]) -> B:
    """Raises BadRequest with the offending `param`."""
    raw = await read_body(request.scope, request.receive, _state(request).setup.config.server)
    try:
        return read_shape(read_object(raw or b"{}"), shape)
    except InvalidRequest as error:
        raise BadRequest(error.message, param=error.param, code=error.code) from error


def _query(request: Request, shape: type[B]) -> B:
    try:
        return msgspec.convert(dict(request.query_params), shape, strict=False)
    except msgspec.ValidationError as error:
        message, param = explain(error)
        raise BadRequest(message, param=param) from error


async def _read(
    request: Request,
    do: Callable[Concatenate[sa.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    with _as_answers(_state(request)):
        return await _state(request).store.read(do, *args, **kwargs)


async def _change(
    request: Request,
    do: Callable[Concatenate[sa.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    state = _state(request)
    with _as_answers(state):
        done = await state.store.write(do, *args, **kwargs)
        await state.mirror.refresh()
    return done


@contextmanager
def _as_answers(state: State) -> Iterator[None]:
    """What the database says against a value is the client's, all else the store's fault."""
    try:
        yield
    except sa.exc.DataError as error:
        raise BadRequest(f"the store cannot hold this: {error.orig}") from error
    except state.store.errors as error:
        raise Unavailable("the store does not answer") from error


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _list(rows: Sequence[shown.Shown], following: str | None = None) -> Response:
    return _json({"object": "list", "data": rows, "next": following})


def _page(found: Sequence[Any], limit: int, show: Callable[[Any], shown.Shown]) -> Response:
    """`next` is where the following page begins; None after the last."""
    following = str(found[-1].id) if len(found) == limit else None
    return _list([show(it) for it in found], following)
