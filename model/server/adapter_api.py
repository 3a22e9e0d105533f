"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter: for whoever has the admin key."""

import asyncio
from pathlib import Path

from msgspec import Struct
from starlette.responses import Response

from model.server.errors import BadRequest, Forbidden, NotFound
from model.server.served import Call, no_such_model
from model.weights.errors import WeightsError


class LoadRequest(Struct, kw_only=True):
    """A relative path starts at the configured root."""

    lora_name: str
    lora_path: str


class UnloadRequest(Struct, kw_only=True):
    lora_name: str


async def load_adapter(call: Call) -> Response:
    """Serve an adapter from a folder below the configured root."""
    request, served = call.read(LoadRequest), call.served
    root, name = served.adapters.check_admin(call.key), request.lora_name
    if not name or name in served.names:
        raise BadRequest(f"the name '{name[:100]}' is taken", "lora_name")
    path = await asyncio.to_thread(below, root, request.lora_path)
    try:
        adapter = await asyncio.to_thread(served.adapters.read, path)
    except WeightsError as error:
        raise BadRequest(str(error), "lora_path") from error
    await served.worker.call(lambda: served.adapters.add(name, path, adapter, served.in_use))
    return Response(f"Success: LoRA adapter '{name}' is served.")


async def unload_adapter(call: Call) -> Response:
    """Serve an adapter no longer."""
    request, served = call.read(UnloadRequest), call.served
    served.adapters.check_admin(call.key)
    name = request.lora_name
    if name not in served.adapters.paths:
        raise no_such_model(name, "lora_name")

    def remove() -> None:
        served.adapters.remove(name, served.in_use)
        served.worker.engine.forget_prefixes()  # another adapter may take the name

    await served.worker.call(remove)
    return Response(f"Success: LoRA adapter '{name}' is served no longer.")


def below(root: Path, named: str) -> Path:
    """The folder that is meant, links followed. Raises Forbidden outside root, NotFound."""
    try:
        path = (root / named).resolve()
        if not path.is_relative_to(root.resolve()):
            raise Forbidden("adapters are loaded from below the configured root only", "lora_path")
        if not path.is_dir():
            raise NotFound(f"there is no folder {named[:200]}", "lora_path")
    except (OSError, ValueError) as error:  # a name that no file can have
        raise NotFound(f"there is no folder {named[:200]!r}", "lora_path") from error
    return path
