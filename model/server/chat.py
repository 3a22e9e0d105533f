"""POST /v1/chat/completions."""

import time
from collections.abc import AsyncIterator

from msgspec import UNSET, UnsetType
from starlette.responses import Response

from model.engine.engine import Output
from model.engine.sequence import Request
from model.protocol.answers import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatLogprobs,
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


async def chat_completions(call: Call) -> Response:
    """One answer, or several to the same conversation."""
    request, served = call.read(ChatRequest), call.served
    served.check_model(request.model)
    check_stream(request)
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("'top_logprobs' needs 'logprobs': true", "top_logprobs")
    if request.max_completion_tokens is not None:
        request.max_tokens = request.max_completion_tokens
    if request.max_tokens == 0:
        raise BadRequest("'max_tokens' must be at least 1", "max_tokens")
    num_top = (request.top_logprobs or 0) if request.logprobs else None
    params = sampling_params(request, served.sampling, num_top)
    job = Request(
        id=f"chatcmpl-{call.id}",
        prompt_ids=await chat_prompt(served, request, call.body),
        params=params,
        cache_salt=request.cache_salt or "",
    )
    reply = ChatReply(served, request, job)
    return await (event_stream(reply.chunks()) if request.stream else reply.whole())


class ChatReply:
    """Turns the engine's outputs for one conversation into OpenAI's objects."""

    def __init__(self, served: Served, request: ChatRequest, job: Request) -> None:
        self.served, self.request, self.job = served, request, job
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
        return ChatChoice(
            index=index,
            message=AnswerMessage(content=answer.text),
            logprobs=self._logprobs(answer),
            finish_reason=answer.finish_reason,
            stop_reason=answer.stop_reason,
            token_ids=answer.token_ids if self.request.return_token_ids else UNSET,
        )

    async def chunks(self) -> AsyncIterator[ChatChunk]:
        """The role of each choice as soon as the engine has taken the request, then its text."""
        answers = Answers()
        at_end, always = wants_usage(self.request)
        async with self.served.worker.answers([self.job]) as outputs:
            usage: Usage | UnsetType | None = None if at_end else UNSET
            for index in range(self.job.params.n):
                chunk = self._chunk(usage, index, Delta(role="assistant", content=""))
                if self.request.return_token_ids and index == 0:
                    chunk.prompt_token_ids = self.job.prompt_ids
                yield chunk
            async for output in outputs:
                answers.take(output)
                if self._is_worth_a_chunk(output):
                    yield self._piece(output, answers.usage() if always else usage)
        if at_end:
            yield self._chunk(answers.usage())

    def _is_worth_a_chunk(self, output: Output) -> bool:
        """Whether it says anything: text may be held back that a stop string might begin."""
        shows_tokens = self.request.logprobs or self.request.return_token_ids
        return bool(output.text or output.finish_reason or (shows_tokens and output.token_ids))

    def _piece(self, output: Output, usage: Usage | UnsetType | None) -> ChatChunk:
        chunk = self._chunk(usage, output.index, Delta(content=output.text))
        choice = chunk.choices[0]
        choice.finish_reason = output.finish_reason
        if output.finish_reason:
            choice.stop_reason = output.stop_reason
        if self.request.logprobs and output.logprobs:
            choice.logprobs = chat_logprobs(self.served.tokenizer, output.logprobs)
        if self.request.return_token_ids:
            choice.token_ids = output.token_ids
        return chunk

    def _chunk(
        self, usage: Usage | UnsetType | None, index: int = 0, delta: Delta | None = None
    ) -> ChatChunk:
        choices = [] if delta is None else [ChatChunkChoice(index=index, delta=delta)]
        return ChatChunk(
            id=self.job.id,
            created=self.created,
            model=self.request.model,
            choices=choices,
            usage=usage,
        )

    def _logprobs(self, answer: Answer) -> ChatLogprobs | None:
        if not self.request.logprobs:
            return None
        return chat_logprobs(self.served.tokenizer, answer.logprobs)
