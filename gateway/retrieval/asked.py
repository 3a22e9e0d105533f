"""What the endpoints of files and of vector stores read from a request."""

from starlette.requests import Request

from gateway.admin_store import state_of
from gateway.retrieval.arms import Arms

MOST = 100  # rows of a page, but for files


def tenant_in(request: Request) -> str:
    tenant: str = request.scope["principal"].tenant
    return tenant


def named_in(request: Request, name: str) -> str:
    found: str = request.path_params[name]
    return found


def arms_in(request: Request) -> Arms:
    return state_of(request).searcher.arms
