"""Carrying out a run: every case to every target, some at a time, each item kept as it comes.

A run that was killed goes on where it was: only what has no item, or an error for one, is asked.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence

from gateway.evals.cases import Answer, Case
from gateway.evals.client import Client, Reply, Unanswered, content, suffix_logprobs
from gateway.evals.definition import AnyGrader, Eval
from gateway.evals.formats import render, variants
from gateway.evals.probes import Asking, Judge, Probe, kappa
from gateway.evals.runs import Item, Run, finish, put_item, read_items, start_run, unfinished
from gateway.store import Store

FORMLESS = LookupError, TypeError, ValueError, ArithmeticError  # a reply without what was asked
Place = tuple[int, Case, str]  # sample, case, column


async def prepare(store: Store, client: Client, it: Eval, is_new: bool = False) -> Run:
    """The run of this eval that was not ended, else a new one, judges measured and releases fixed.

    Raises Unanswered.
    """
    found = None if is_new else await store.read(unfinished, it)
    if found is not None:
        return found
    trust = {
        name: await kappa(judge, it.labelled[name], client)
        for name, judge in it.graders.items()
        if isinstance(judge, Judge)
    }
    return await store.write(start_run, it, trust, await client.releases())


async def places_left(store: Store, run: Run) -> list[Place]:
    """Targets take turns, so that whatever the hour brings it brings to all of them."""
    kept = await store.read(read_items, run.id)
    done = {(it.sample, it.case, it.target) for it in kept if not it.error}
    every = itertools.product(range(run.eval.samples), run.eval.cases, run.eval.columns())
    return [it for it in every if (it[0], it[1].id, it[2]) not in done]


async def carry_out(
    store: Store,
    client: Client,
    run: Run,
    concurrency: int = 4,
    on_done: Callable[[Item], None] = lambda item: None,
) -> int:
    """Ask all that is left; the number of errors. Without any the run is finished."""
    left = iter(await places_left(store, run))
    num_errors = 0

    async def work() -> None:
        nonlocal num_errors
        for place in left:
            item = await ask(client, run, place)
            await store.write(put_item, run.id, item)
            num_errors += bool(item.error)
            on_done(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    if not num_errors:
        await store.write(finish, run.id)
    return num_errors


async def ask(client: Client, run: Run, place: Place) -> Item:
    sample, case, column = place
    subject = Asked(client, run, column)
    graders = run.eval.taking(case)
    answer, scores, error = Answer(""), {}, ""
    try:
        if any(it.wants_answer for it in graders.values()):
            answer = await subject.answer(case, sample)
        for name, grader in graders.items():
            scores[name] = await _score(grader, case, answer, subject)
    except Unanswered as it:
        error, scores = str(it), {}
    except FORMLESS as it:
        error, scores = f"the reply is not of the form that was asked for: {it!r}", {}
    return Item(
        target=column, case=case.id, sample=sample, error=error, scores=scores,
        answer=answer.text.replace("\0", "�"),  # which PostgreSQL cannot keep
        prompt_tokens=sum(it.prompt_tokens for it in subject.replies),
        completion_tokens=sum(it.completion_tokens for it in subject.replies),
        cost=sum(it.cost for it in subject.replies),
        total_us=sum(it.total_us for it in subject.replies),
    )  # fmt: skip


async def _score(grader: AnyGrader, case: Case, answer: Answer, subject: "Asked") -> float:
    if isinstance(grader, Probe):
        return await grader.probe(case, subject)
    if isinstance(grader, Asking):
        return await grader.ask(case, answer, subject.client)
    return grader.score(case, answer)


class Asked:
    """One target, asked about one case: a `probes.Subject` that keeps the replies to be counted."""

    def __init__(self, client: Client, run: Run, column: str) -> None:
        name, _, number = column.partition("#")
        self.client, self.replies = client, list[Reply]()
        self._target, self._formats = run.eval.targets[name], run.eval.formats
        self._format = variants(self._formats)[int(number)] if self._formats else None
        model = self._target.model
        release = run.releases.get(model)
        self._model = f"{model}@{release}" if release else model

    async def answer(self, case: Case, sample: int) -> Answer:
        target = self._target
        turns = case.turns()
        if self._formats is not None and self._format is not None:
            turns = render(self._formats.task, case.fields, self._format)
        if target.system:
            turns = [{"role": "system", "content": target.system}, *turns]
        body = {**target.body, "model": self._model, "messages": turns}
        body["seed"] = target.body.get("seed", 0) + sample
        if target.prompt is not None:
            body["prompt"] = {**target.prompt, "variables": case.fields}
        reply = await self._post("/v1/chat/completions", body)
        notes = reply.body["choices"][0]["message"].get("annotations") or ()
        return Answer(content(reply), frozenset(it["filename"] for it in notes if "filename" in it))

    async def likelihoods(self, prefixes: Sequence[str], texts: Sequence[str]) -> list[list[float]]:
        prompts = [prefix + text for prefix, text in zip(prefixes, texts, strict=True)]
        body = {"model": self._model, "prompt": prompts, "max_tokens": 0, "echo": True}
        reply = await self._post("/v1/completions", {**body, "logprobs": 1})
        return suffix_logprobs(reply, prefixes)

    async def _post(self, path: str, body: dict[str, object]) -> Reply:
        reply = await self.client.post(path, body)
        self.replies.append(reply)
        return reply
