"""GET /v1/traces/{id}: where the time of a request went, for whoever made it, or administers."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin_store import as_json, read, state_of
from gateway.errors import NotFound
from gateway.store.traces import find


async def show(request: Request) -> Response:
    """The id is the trace's, as in `traceresponse`, or the request's, as in `x-request-id`.

    Of several requests the youngest, with the others in `older`. What others asked is not found, as
    if it were not there.
    """
    await state_of(request).traces.flush()
    caller, name = request.scope["principal"], request.path_params["name"]
    found = await read(request, find, name, None if "admin" in caller.scopes else caller.key_id)
    if not found:
        raise NotFound(f"there is no trace of {name!r}: it may have been sampled out or forgotten")
    youngest, *older = map(msgspec.Raw, found)
    trace = msgspec.json.decode(youngest, type=dict[str, msgspec.Raw])
    return as_json({**trace, "older": older})
