"""POST /v1/completions: text to text, for one prompt or many."""

import time
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from model.engine.logprobs import TokenLogprobs
from model.engine.sequence import Request
from model.protocol.answers import Completion, CompletionChoice, Usage
from model.protocol.shapes import CompletionRequest
from model.server.errors import BadRequest
from model.server.logprobs import completion_logprobs, prompt_logprobs
from model.server.parameters import check_stream, sampling_params
from model.server.prompts import text_prompts
from model.server.replies import Answer, Answers, event_stream, json_response, wants_usage
from model.server.served import Call, Served
from model.server.structured import grammar_of


async def completions(call: Call) -> Response:
    """`n` answers to each prompt; choice `p * n + i` is answer i to prompt p."""
    request, served = call.read(CompletionRequest), call.served
    adapter = served.adapter_of(request.model)
    check_stream(request)
    if request.best_of not in (None, request.n or 1):
        raise BadRequest("'best_of' must equal 'n'", "best_of", "unsupported")
    if request.max_tokens == 0 and not request.echo:
        raise BadRequest("'max_tokens': 0 needs 'echo': true", "max_tokens")
    params = sampling_params(request, served.sampling, request.logprobs)
    if request.echo and request.logprobs is not None:
        num_top = max(request.logprobs, request.prompt_logprobs or 0)
        params = msgspec.structs.replace(params, prompt_logprobs=num_top)
    prompts = await text_prompts(
        served,
        request.prompt,
        request.add_special_tokens is not False,
        request.truncate_prompt_tokens,
    )
    grammar = await grammar_of(served, request)
    first_id = served.worker.free_id(f"cmpl-{call.id}")
    jobs = [
        Request(
            id=f"{first_id}-{i}" if i else first_id,
            prompt_ids=prompt_ids,
            params=params,
            grammar=grammar,
            cache_salt=request.cache_salt or "",
            adapter=adapter,
        )
        for i, prompt_ids in enumerate(prompts)
    ]
    reply = CompletionReply(served, request, jobs)
    return await (event_stream(reply.chunks()) if request.stream else reply.whole())


class CompletionReply:
    """Turns the engine's outputs for a list of prompts into OpenAI's objects."""

    def __init__(self, served: Served, request: CompletionRequest, jobs: list[Request]) -> None:
        self.served, self.request = served, request
        self.jobs = {job.id: job for job in jobs}
        self.created = int(time.time())
        self.num_added = _num_added(served, request)
        self._order = {job.id: place for place, job in enumerate(jobs)}
        self._offsets: Counter[int] = Counter()  # characters of a choice that logprobs speak for

    async def whole(self) -> Response:
        answers = Answers()
        async with self.served.worker.answers([*self.jobs.values()]) as outputs:
            await answers.take_all(outputs)
        choices = [
            self._choice(job, index, answers[job.id, index], answers[job.id, 0])
            for job in self.jobs.values()
            for index in range(job.params.n)
        ]
        return json_response(self._completion(choices, answers.usage()))

    async def chunks(self) -> AsyncIterator[Completion]:
        """A piece of a choice has the form of a choice; an echoed prompt is in its first piece."""
        answers = Answers()
        at_end, always = wants_usage(self.request)
        usage: Usage | UnsetType | None = None if at_end else UNSET
        async with self.served.worker.answers([*self.jobs.values()]) as outputs:
            async for output in outputs:
                starts = (output.request_id, output.index) not in answers
                answers.take(output)
                job, first = self.jobs[output.request_id], answers[output.request_id, 0]
                piece = Answer()
                piece.take(output)
                choice = self._choice(job, output.index, piece, first, starts=starts)
                if choice.text or choice.finish_reason or choice.logprobs or choice.token_ids:
                    yield self._completion([choice], answers.usage() if always else usage)
        if at_end:
            yield self._completion([], answers.usage())

    def _choice(
        self, job: Request, index: int, piece: Answer, first: Answer, *, starts: bool = True
    ) -> CompletionChoice:
        """A choice or a `piece` of one; the prompt was scored for the `first` copy only."""
        request, tokenizer = self.request, self.served.tokenizer
        choice = CompletionChoice(
            index=self._order[job.id] * job.params.n + index,
            text=piece.text,
            finish_reason=piece.finish_reason,
            stop_reason=piece.stop_reason,
        )
        ids, scored = piece.token_ids, list[TokenLogprobs | None](piece.logprobs)
        if request.echo and starts:
            prompt_ids = job.prompt_ids[self.num_added :]
            choice.text = tokenizer.decode(prompt_ids, skip_special_tokens=False) + choice.text
            before = (first.prompt_logprobs or [])[self.num_added :]
            ids, scored = prompt_ids[: len(before)] + ids, before + scored
        if request.logprobs is not None:
            at = self._offsets[choice.index]
            choice.logprobs = completion_logprobs(tokenizer, scored, ids, at)
            self._offsets[choice.index] += sum(map(len, choice.logprobs.tokens))
        if request.return_token_ids:
            choice.token_ids = piece.token_ids
            choice.prompt_token_ids = job.prompt_ids if starts else UNSET
        if request.prompt_logprobs is not None:
            choice.prompt_logprobs = prompt_logprobs(tokenizer, first.prompt_logprobs or ())
        return choice

    def _completion(
        self, choices: list[CompletionChoice], usage: Usage | UnsetType | None
    ) -> Completion:
        return Completion(
            id=next(iter(self.jobs)),
            created=self.created,
            model=self.request.model,
            choices=choices,
            usage=usage,
        )


def _num_added(served: Served, request: CompletionRequest) -> int:
    """Tokens that stand before a text without having been written: an echo leaves them out."""
    is_text = isinstance(request.prompt, str) or isinstance(request.prompt[0], str)
    adds = is_text and request.add_special_tokens is not False
    return len(served.tokenizer.encode("", add_special_tokens=True)) if adds else 0
