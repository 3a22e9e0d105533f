"""How an admin route reads what it is asked, and reads or changes the store.

A change is in force here when the answer is sent, and on other replicas within a second.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import BadRequest, Unavailable
from gateway.reply import read_body
from gateway.state import State
from gateway.store import shown
from gateway.store.audit import By
from model.protocol.errors import InvalidRequest
from model.protocol.shapes import explain, read_object, read_shape

B = TypeVar("B", bound=msgspec.Struct)
P = ParamSpec("P")
T = TypeVar("T")


def state_of(request: Request) -> State:
    state: State = request.app.state
    return state


def by_key(request: Request, why: str = "") -> By:
    return By(f"key:{request.scope['principal'].key_id}", why)


async def body_of(request: Request, shape: type[B]) -> B:
    """Raises BadRequest with the offending `param`."""
    raw = await read_body(request.scope, request.receive, state_of(request).setup.config.server)
    try:
        return read_shape(read_object(raw or b"{}"), shape)
    except InvalidRequest as error:
        raise BadRequest(error.message, param=error.param, code=error.code) from error


def query_of(request: Request, shape: type[B]) -> B:
    try:
        return msgspec.convert(dict(request.query_params), shape, strict=False)
    except msgspec.ValidationError as error:
        message, param = explain(error)
        raise BadRequest(message, param=param) from error


async def read(
    request: Request,
    do: Callable[Concatenate[sa.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    with _as_answers(state_of(request)):
        return await state_of(request).store.read(do, *args, **kwargs)


async def change(
    request: Request,
    do: Callable[Concatenate[sa.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    state = state_of(request)
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


def as_json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def as_list(rows: Sequence[shown.Shown], following: str | None = None) -> Response:
    return as_json({"object": "list", "data": rows, "next": following})


def as_page(found: Sequence[Any], limit: int, show: Callable[[Any], shown.Shown]) -> Response:
    """`next` is where the following page begins; None after the last."""
    following = str(found[-1].id) if len(found) == limit else None
    return as_list([show(it) for it in found], following)
