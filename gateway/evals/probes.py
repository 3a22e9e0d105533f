"""Graders that must ask: for likelihoods of texts, for vectors, or for another model's opinion.

Likelihoods are of plain text after plain text, as OpenAI's completions with `echo` give them. A
judge answers yes or no, and what counts is the probability of "yes" against "no".
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import msgspec
import numpy as np

from gateway.evals.agreement import cohen
from gateway.evals.cases import Answer, Case
from gateway.evals.client import Client, Reply, content, first_probabilities
from gateway.evals.graders import Grader

JUDGE = (
    "Question: {question}\n\nAnswer: {answer}\n\nDoes this answer the question correctly? "
    "Reply with one word, yes or no."
)
NUM_TOP = 20


class Subject(Protocol):
    """The target that is graded; what it is asked is counted as its own."""

    async def likelihoods(self, prefixes: Sequence[str], texts: Sequence[str]) -> list[list[float]]:
        """For each text the log-probabilities of its tokens behind its prefix."""
        ...


class Probe(Grader):
    """Asks the target itself for likelihoods."""

    wants_answer: ClassVar[bool] = False

    async def probe(self, case: Case, subject: Subject) -> float:
        raise NotImplementedError


class Choice(Probe, tag="choice"):
    """The right continuation, `choices[0]`, is the likeliest; `per_byte` forgives length."""

    needs: ClassVar[Sequence[str]] = ("choices",)
    per_byte: bool = True

    async def probe(self, case: Case, subject: Subject) -> float:
        prefixes = [case.question] * len(case.choices)
        found = [sum(it) for it in await subject.likelihoods(prefixes, case.choices)]
        if self.per_byte:
            found = [p / len(it.encode()) for p, it in zip(found, case.choices, strict=True)]
        return float(found[0] > max(found[1:], default=-math.inf))


class Perplexity(Probe, tag="perplexity"):
    """One over the perplexity of the continuation: the geometric mean of its probabilities."""

    needs: ClassVar[Sequence[str]] = ("continuation",)

    async def probe(self, case: Case, subject: Subject) -> float:
        [found] = await subject.likelihoods([case.question], [case.continuation])
        return math.exp(sum(found) / len(found)) if found else 0.0


class Counterfactual(Probe, tag="counterfactual"):
    """How little it matters for the continuation which of two words stands for {who}.

    With d the difference of the log-likelihoods: 1 - |tanh(d / 2)|, 1 = it does not matter.
    """

    needs: ClassVar[Sequence[str]] = ("continuation", "swap")

    async def probe(self, case: Case, subject: Subject) -> float:
        prefixes = [case.question.replace("{who}", who) for who in case.swap or ()]
        texts = [case.continuation] * len(prefixes)
        a, b = (sum(it) for it in await subject.likelihoods(prefixes, texts))
        return 1 - abs(math.tanh((a - b) / 2))


class Asking(Grader, kw_only=True):
    """Asks another model about the answer."""

    model: str

    async def ask(self, case: Case, answer: Answer, client: Client) -> float:
        raise NotImplementedError


class Similarity(Asking, tag="similarity"):
    """The cosine of the answer's vector with the nearest expected one's, not below 0."""

    async def ask(self, case: Case, answer: Answer, client: Client) -> float:
        texts = [answer.text or " ", *case.expected]
        reply = await client.post("/v1/embeddings", {"model": self.model, "input": texts})
        rows = np.array([it["embedding"] for it in reply.body["data"]], np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return max(0.0, float((rows[1:] @ rows[0]).max()))


class Judge(Asking, tag="judge", kw_only=True):
    """`labels`: a file of `Labelled` lines. A judge who agrees less with them than `min_kappa`
    is shown and not counted."""

    needs: ClassVar[Sequence[str]] = ("question",)
    labels: str
    template: str = JUDGE
    min_kappa: float = 0.6

    async def ask(self, case: Case, answer: Answer, client: Client) -> float:
        return await self.opinion(case.question, answer.text, client)

    async def opinion(self, question: str, answer: str, client: Client) -> float:
        text = self.template.replace("{answer}", answer).replace("{question}", question)
        body: dict[str, Any] = {
            "model": self.model, "messages": [{"role": "user", "content": text}],
            "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": NUM_TOP,
        }  # fmt: skip
        return yes_share(await client.post("/v1/chat/completions", body))


class Labelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    question: str
    answer: str
    is_good: bool


async def kappa(judge: Judge, labelled: Sequence[Labelled], client: Client) -> float:
    """How far the judge agrees with those who wrote the labels, beyond chance."""
    said = [await judge.opinion(it.question, it.answer, client) > 0.5 for it in labelled]
    return cohen([it.is_good for it in labelled], said)


def yes_share(reply: Reply) -> float:
    """The probability of yes among yes and no; without log-probabilities, by the text. 0.5 for a
    judge who says neither."""
    tops = first_probabilities(reply) or [(content(reply), 0.0)]
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in tops:
        word = token.strip(" \n*\"'.,!").lower()
        if word in mass:
            mass[word] += math.exp(logprob)
    total = sum(mass.values())
    return mass["yes"] / total if total else 0.5
