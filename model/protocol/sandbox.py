"""The inside of the template renderer: a process of its own that renders until its input ends.

Run as a script by `templates.Renderer`; imports nothing of the project, so that it starts quickly.
The kernel holds the limits, so that they hold inside every filter and operator of Jinja as well:
memory by RLIMIT_AS, processor time by an interval timer whose signal ends the process.
"""

import functools
import json
import resource
import signal
import struct
import sys
from datetime import datetime
from typing import Any, BinaryIO

import msgspec
from jinja2 import StrictUndefined, Template, TemplateSyntaxError, Undefined, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

HEADER = struct.Struct("<I")  # a frame: its length, then JSON
OUT_OF_MEMORY = 3  # exit status: what fragments are left would starve the next job


class Raised(Exception):
    """The template itself refused its input, by `raise_exception`."""


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what is trained on; here it is only text."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's interface)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _raise_exception(message: str) -> None:
    raise Raised(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def environment(undefined: type[Undefined]) -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates, without autoescaping."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=undefined,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
    )
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _raise_exception
    made.globals["strftime_now"] = _strftime_now
    return made


ENVIRONMENTS = {True: environment(StrictUndefined), False: environment(Undefined)}


@functools.lru_cache(maxsize=64)
def _compiled(source: str, is_strict: bool) -> Template:
    return ENVIRONMENTS[is_strict].from_string(source)


def answer(job: dict[str, Any], max_chars: int) -> tuple[str, str]:
    """(`kind`, text): the rendered text, or which error and its message."""
    try:
        template = _compiled(job["source"], job["strict"])
        pieces, size = [], 0
        for piece in template.generate(job["variables"]) if "variables" in job else ():
            pieces.append(piece)
            size += len(piece)
            if size > max_chars:
                return "limit", f"the text is longer than {max_chars} characters"
        return "text", "".join(pieces)
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    except Raised as error:
        return "raised", str(error)
    except TemplateSyntaxError as error:
        return "syntax", f"line {error.lineno}: {error.message}"
    except RecursionError:
        return "limit", "the template nests or recurses too deeply"
    except Exception as error:  # whatever else a template provokes is the template's failure
        return "failed", f"{type(error).__name__}: {error}"


def serve(jobs: BinaryIO, answers: BinaryIO, max_chars: int, cpu_s: float) -> None:
    """Answer job after job; a job that takes longer than `cpu_s` of processor time ends all."""
    while header := jobs.read(HEADER.size):
        job = msgspec.json.decode(jobs.read(*HEADER.unpack(header)))
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        kind, text = answer(job, max_chars)
        text = text.encode(errors="replace").decode()  # a lone surrogate has no bytes
        signal.setitimer(signal.ITIMER_PROF, 0)
        body = msgspec.json.encode((kind, text))
        answers.write(HEADER.pack(len(body)) + body)
        answers.flush()


def main() -> None:
    """Arguments: characters of output, seconds of processor time, bytes of address space."""
    max_chars, cpu_s, memory = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; it closes our input
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, sys.stdout.buffer, max_chars, cpu_s)


if __name__ == "__main__":
    main()
