"""What chat and text completions share on the way out: answers put together, streams, usage."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
from starlette.responses import Response, StreamingResponse

from model.engine.engine import Output
from model.engine.logprobs import TokenLogprobs
from model.protocol.answers import PromptTokensDetails, Usage
from model.protocol.shapes import Sampled
from model.protocol.sse import DONE, encode_event
from model.server.errors import ServerError, as_server_error

encode = msgspec.json.Encoder().encode


@dataclass
class Answer:
    """One sequence as far as it has come."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def take(self, output: Output) -> None:
        """Raises ServerError if the engine gave up on the sequence."""
        if output.finish_reason == "error":
            raise ServerError(f"the answer failed: {output.stop_reason}")
        self.texts.append(output.text)
        self.token_ids += output.token_ids
        self.logprobs += output.logprobs or ()
        self.prompt_logprobs = output.prompt_logprobs or self.prompt_logprobs
        self.num_prompt_tokens = output.num_prompt_tokens
        self.num_cached_tokens = output.num_cached_tokens
        self.num_output_tokens = output.num_output_tokens
        self.finish_reason, self.stop_reason = output.finish_reason, output.stop_reason


class Answers(dict[tuple[str, int], Answer]):
    """The answers of one HTTP request, by request id and copy."""

    def take(self, output: Output) -> Answer:
        """Note what came, and return whose it is."""
        answer = self.setdefault((output.request_id, output.index), Answer())
        answer.take(output)
        return answer

    async def take_all(self, outputs: AsyncIterator[Output]) -> None:
        async for output in outputs:
            self.take(output)

    def usage(self) -> Usage:
        """A prompt counts once, however many answers it gets."""
        firsts = [answer for (_, index), answer in self.items() if index == 0]
        prompt = sum(answer.num_prompt_tokens for answer in firsts)
        output = sum(answer.num_output_tokens for answer in self.values())
        cached = sum(answer.num_cached_tokens for answer in firsts)
        return Usage(prompt, output, prompt + output, PromptTokensDetails(cached))


def json_response(body: object) -> Response:
    return Response(encode(body), media_type="application/json")


async def event_stream(chunks: AsyncIterator[msgspec.Struct]) -> Response:
    """A response of server-sent events, once there is a first chunk: a refusal still is a 400."""
    first = await anext(chunks)
    return StreamingResponse(
        _frames(first, chunks),
        media_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )


async def _frames(
    first: msgspec.Struct, chunks: AsyncIterator[msgspec.Struct]
) -> AsyncIterator[bytes]:
    try:
        yield encode_event(encode(first))
        async for chunk in chunks:
            yield encode_event(encode(chunk))
    except Exception as error:  # the status is out: only the stream can tell
        yield encode_event(as_server_error(error).body)
        return
    yield DONE


def wants_usage(request: Sampled) -> tuple[bool, bool]:
    """(at the end, in every chunk)"""
    options = request.stream_options
    if options is None:
        return False, False
    return bool(options.include_usage), bool(
        options.include_usage and options.continuous_usage_stats
    )
