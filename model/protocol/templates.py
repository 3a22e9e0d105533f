"""The one renderer of Jinja templates: chat templates of checkpoints, prompts of the gateway.

A template is code from whoever wrote it; text from users only ever is a variable's value.
Jinja's sandbox keeps a template from the machine, not from eating it: `{{ 'a' * 10**10 }}` is
legal. So templates are rendered by a child process (`sandbox.py`) under the kernel's limits;
a job beyond them costs that process its life, and the next job gets a new one.
The way there and back costs about 80 µs a job; a prompt of six messages renders in 20 µs.

    TemplateError            what a caller of this module has to expect
    ├── TemplateSyntax       the source does not compile
    ├── TemplateFailed       an undefined variable, a forbidden attribute, a wrong type
    ├── TemplateRaised       the template refused its input by `raise_exception`
    └── TemplateLimit        too long, too slow, or too much memory
"""

import asyncio
import contextlib
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

_HEADER = struct.Struct("<I")  # as in sandbox.py
_OUT_OF_MEMORY = 3


class TemplateError(Exception):
    """A template could not be rendered; its text may be shown to whoever wrote the template."""


class TemplateSyntax(TemplateError):
    """The source does not compile."""


class TemplateFailed(TemplateError):
    """Rendering met an undefined variable, a forbidden attribute, a wrong type."""


class TemplateRaised(TemplateError):
    """The template refused its input; the message is the template's own."""


class TemplateLimit(TemplateError):
    """Rendering went beyond a limit: output, processor time or memory."""


_ERRORS = {
    "syntax": TemplateSyntax,
    "failed": TemplateFailed,
    "raised": TemplateRaised,
    "limit": TemplateLimit,
}


class Limits(msgspec.Struct, frozen=True):
    """What one job may take."""

    max_chars: int = 2_000_000
    cpu_s: float = 1.0
    memory_bytes: int = 512 << 20


class Renderer:
    """A child process and the line to it. Jobs run one after the other; safe for any thread."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def check(self, source: str) -> None:
        """Compile only; raises `TemplateSyntax`."""
        self._run({"source": source, "strict": True})

    def render(self, source: str, variables: Mapping[str, Any], *, strict: bool = True) -> str:
        """The text. Blocks for as long as it takes: not for an event loop.

        With `strict`, an undefined variable is an error; chat templates of checkpoints are
        written for transformers, where it counts as false: for them `strict=False`.
        """
        return self._run({"source": source, "strict": strict, "variables": variables})

    async def render_async(
        self, source: str, variables: Mapping[str, Any], *, strict: bool = True
    ) -> str:
        """`render` for an event loop."""
        return await asyncio.to_thread(self.render, source, variables, strict=strict)

    def close(self) -> None:
        """End the child. A later job would start another."""
        with self._lock:
            self._bury()

    def _run(self, job: dict[str, Any]) -> str:
        body = msgspec.json.encode(job)
        with self._lock:
            kind, text = self._exchange(_HEADER.pack(len(body)) + body)
        if kind == "text":
            return text
        raise _ERRORS[kind](text)

    def _exchange(self, frame: bytes) -> tuple[str, str]:
        child = self._living_child()
        assert child.stdin is not None  # noqa: S101  (both are pipes)
        assert child.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(frame)
            child.stdin.flush()
        header = child.stdout.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return "limit", self._cause_of_death()
        body = child.stdout.read(*_HEADER.unpack(header))
        return msgspec.json.decode(body, type=tuple[str, str])

    def _living_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self._bury()  # it died between two jobs
        if self._child is None:
            limits = (self.limits.max_chars, self.limits.cpu_s, self.limits.memory_bytes)
            script = Path(__file__).with_name("sandbox.py")
            self._child = subprocess.Popen(  # noqa: S603  (our own script and numbers)
                [sys.executable, "-P", str(script), *map(str, limits)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._child

    def _bury(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        child.kill()
        child.communicate()  # waits, and closes both pipes
        return child.returncode

    def _cause_of_death(self) -> str:
        assert self._child is not None  # noqa: S101
        self._child.wait()
        status = self._bury()
        if status == -signal.SIGPROF:
            return f"rendering took longer than {self.limits.cpu_s:g} s"
        if status == _OUT_OF_MEMORY:
            return f"rendering took more than {self.limits.memory_bytes >> 20} MiB of memory"
        return f"the renderer ended with status {status}"
