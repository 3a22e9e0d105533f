"""POST /v1/chat/completions."""

import time
from collections.abc import AsyncIterator

from msgspec import UNSET, UnsetType
from starlette.responses import Response

from model.engine.engine import Output
from model.engine.sequence import Request
from model.protocol.answers import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    Delta,
    Usage,
)
from model.protocol.shapes import ChatRequest
from model.server.errors import BadRequest
from model.server.logprobs import chat_logprobs, prompt_logprobs
from model.server.parameters import check_stream, sampling_params
from model.server.prompts import chat_prompt
from model.server.replies import Answer, Answers, event_stream, json_response, wants_usage
from model.server.served import Call, Served
from model.server.structured import grammar_of
from model.server.tools import CallReader, forced_calls, message_of, must_call, offered_tools


async def chat_completions(call: Call) -> Response:
    """One answer, or several, to a conversation."""
    request, served = call.read(ChatRequest), call.served
    adapter = served.adapter_of(request.model)
    check_stream(request)
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("'top_logprobs' needs 'logprobs': true", "top_logprobs")
    if request.max_completion_tokens is not None:
        request.max_tokens = request.max_completion_tokens
    if request.max_tokens == 0:
        raise BadRequest("'max_tokens' must be at least 1", "max_tokens")
    tools = {tool.function.name for tool in offered_tools(request)}
    job = Request(
        params=sampling_params(
            request, served.sampling, (request.top_logprobs or 0) if request.logprobs else None
        ),
        grammar=await grammar_of(served, request, forced_calls(request)),
        prompt_ids=await chat_prompt(served, request, call.body),
        cache_salt=request.cache_salt or "",
        adapter=adapter,
        id=served.worker.free_id(f"chatcmpl-{call.id}"),
    )
    reply = ChatReply(served, request, job, tools)
    return await (event_stream(reply.chunks()) if request.stream else reply.whole())


class ChatReply:
    """Turns the engine's outputs for one conversation into OpenAI's objects."""

    def __init__(self, served: Served, request: ChatRequest, job: Request, tools: set[str]) -> None:
        self.served, self.request, self.job, self.tools = served, request, job, tools
        self.is_forced = must_call(request)
        self.created = int(time.time())

    async def whole(self) -> Response:
        answers = Answers()
        async with self.served.worker.answers([self.job]) as outputs:
            await answers.take_all(outputs)
        ordered = [answers[self.job.id, index] for index in range(self.job.params.n)]
        scored = ordered[0].prompt_logprobs
        return json_response(
            ChatCompletion(
                id=self.job.id,
                created=self.created,
                model=self.request.model,
                choices=[self._choice(index, answer) for index, answer in enumerate(ordered)],
                usage=answers.usage(),
                prompt_logprobs=prompt_logprobs(self.served.tokenizer, scored) if scored else UNSET,
                prompt_token_ids=self.job.prompt_ids if self.request.return_token_ids else UNSET,
            )
        )

    def _choice(self, index: int, answer: Answer) -> ChatChoice:
        message = message_of(answer.text, self.tools, self.is_forced)
        shown = self.request.logprobs
        return ChatChoice(
            index=index,
            message=message,
            logprobs=chat_logprobs(self.served.tokenizer, answer.logprobs) if shown else None,
            finish_reason=_reason(answer.finish_reason, bool(message.tool_calls)),
            stop_reason=answer.stop_reason,
            token_ids=answer.token_ids if self.request.return_token_ids else UNSET,
        )

    async def chunks(self) -> AsyncIterator[ChatChunk]:
        """The role of each choice as soon as the engine has taken the request, then its text."""
        answers, n, length = Answers(), self.job.params.n, len(self.job.prompt_ids)
        readers = [CallReader(self.tools, self.is_forced) for _ in range(n)]
        at_end, always = wants_usage(self.request)
        usage = None if at_end else UNSET
        async with self.served.worker.answers([self.job]) as outputs:
            for index in range(n):
                role = ChatChunkChoice(index=index, delta=Delta(role="assistant", content=""))
                chunk = self._chunk([role], Usage(length, 0, length) if always else usage)
                if self.request.return_token_ids:
                    chunk.prompt_token_ids = self.job.prompt_ids
                yield chunk
            async for output in outputs:
                answers.take(output)
                for choice in self._pieces(output, readers[output.index]):
                    yield self._chunk([choice], answers.usage() if always else usage)
        if at_end:
            yield self._chunk([], answers.usage())

    def _pieces(self, output: Output, reader: CallReader) -> list[ChatChunkChoice]:
        """None, if nothing is certain yet: a stop string or a call may be about to begin."""
        deltas = reader.push(output.text, is_last=output.finish_reason is not None)
        shows_tokens = self.request.logprobs or self.request.return_token_ids
        if not deltas and (output.finish_reason or (shows_tokens and output.token_ids)):
            deltas = [Delta()]
        choices = [ChatChunkChoice(index=output.index, delta=delta) for delta in deltas]
        if not choices:
            return []
        last = choices[-1]
        if output.finish_reason:
            last.finish_reason = _reason(output.finish_reason, reader.has_calls)
            last.stop_reason = output.stop_reason
        if self.request.logprobs and output.logprobs:
            last.logprobs = chat_logprobs(self.served.tokenizer, output.logprobs)
        if self.request.return_token_ids:
            last.token_ids = output.token_ids
        return choices

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | UnsetType | None) -> ChatChunk:
        return ChatChunk(
            id=self.job.id,
            created=self.created,
            model=self.request.model,
            choices=choices,
            usage=usage,
        )


def _reason(finish_reason: str | None, has_calls: bool) -> str | None:
    """Why an answer ended, in OpenAI's words."""
    return "tool_calls" if has_calls and finish_reason == "stop" else finish_reason
