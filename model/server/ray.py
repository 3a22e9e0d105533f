"""The model server as a deployment of Ray Serve that grows and shrinks with its load.

    serve run model.server.ray:app model=smollm2 embedder=minilm max_replicas=4

Each replica is a process with an engine of its own behind the same routes; Ray starts them, shares
requests out and replaces those that die. What a lost replica cut short, whoever asked repeats: the
gateway's retries do. `/metrics` is that of the replica which happens to answer; Ray has its own.
"""

from typing import Any

import msgspec
from ray import serve  # type: ignore[import-not-found, unused-ignore] # the extra `ray`
from starlette.types import ASGIApp

from model.server.commands import use_threads

MAX_ONGOING = 256  # requests at one replica; beyond them they wait at Ray's door


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The words behind `serve run`, or `args` of a Serve config file."""

    model: str = "smollm2"
    embedder: str = ""
    served_name: str | None = None
    threads: int = 1  # processors of one replica
    min_replicas: int = 1
    max_replicas: int = 2
    target_ongoing: float = 8.0  # requests at a replica that Ray aims at


class Replica:
    """One engine. Ray awaits `__init__` before it sends requests."""

    async def __init__(self, options: Options) -> None:  # type: ignore[misc] # Ray's protocol
        use_threads(options.threads)  # before anything below imports numpy
        from model.server.loading import Settings, load

        settings = Settings(
            model=options.model, embedder=options.embedder, served_name=options.served_name
        )
        self.served = await load(settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        from model.server.app import State, make_app

        return make_app(State(self.served))

    def check_health(self) -> None:
        """Ray asks every few seconds and replaces a replica that raises."""
        if self.served.worker.broken.is_set():
            raise RuntimeError("the engine has broken")


def app(arguments: dict[str, Any]) -> Any:
    """What Ray Serve runs. Raises msgspec.ValidationError for an argument that nobody knows."""
    options = msgspec.convert(arguments, Options, strict=False)
    deployment = serve.deployment(
        name="model",
        ray_actor_options={"num_cpus": options.threads},
        max_ongoing_requests=MAX_ONGOING,
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.target_ongoing,
        },
    )
    return deployment(serve.ingress()(Replica)).bind(options)
