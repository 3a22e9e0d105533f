"""`glassgate trace`: where the time of one request went."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands import CONFIG, opened

if TYPE_CHECKING:
    from gateway.tracing.spans import Span, Trace, Value

WIDTH = 40  # characters of the bars


@click.command()
@click.argument("id")
@CONFIG
def trace(id: str, config: Path | None) -> None:  # noqa: A002 - click names the argument by it
    """The waterfall of a request by its x-request-id, or of all in a trace by the trace's id."""
    with opened(config, write=False) as (connection, _):
        import msgspec

        from gateway.store.traces import MAX_FOUND, find
        from gateway.tracing.spans import Trace

        found = find(connection, id)
        if not found:
            raise click.ClickException(f"there is no trace of {id!r}")
        for data in reversed(found):
            for line in waterfall(msgspec.json.decode(data, type=Trace)):
                click.echo(line)
        if len(found) == MAX_FOUND:
            click.echo(f"these are the last {MAX_FOUND}; there may be older ones")


def waterfall(trace: "Trace") -> Iterator[str]:
    """A line for each span: where it lies within the request, how long it took, what it says."""
    yield f"trace {trace.trace_id}  request {trace.request_id}"
    depths = {trace.spans[0].parent: -1}
    names = max(len(span.name) + 2 * _depth(span, depths) for span in trace.spans)
    total = max(1, trace.spans[0].end_us)
    for span in trace.spans:
        name = "  " * depths[span.id] + span.name
        start = min(WIDTH - 1, span.start_us * WIDTH // total)
        end = max(start + 1, min(WIDTH, round(span.end_us * WIDTH / total)))
        bar = " " * start + "█" * (end - start)
        took = (span.end_us - span.start_us) / 1000
        said = " ".join(f"{key}={_text(it)}" for key, it in span.attributes.items() if it != "")
        yield f"{name:<{names}} {took:>10.3f} ms ▕{bar:<{WIDTH}}▏ {said}".rstrip()


def _text(value: "Value") -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _depth(span: "Span", depths: dict[str, int]) -> int:
    """Notes it, too: a span comes after its parent."""
    depths[span.id] = depths[span.parent] + 1
    return depths[span.id]
