"""A case: what is asked, and what each kind of grader may want to know to judge the answer."""

from typing import Any, dataclass_transform

import msgspec

from gateway.retrieval.found import Hit


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Unknown keys are refused."""


class Case(Strict):
    """`tags` say what the case is about, and which graders take it. Cases of one `cluster` are not
    independent: paraphrases of one question, questions on one document."""

    id: str
    question: str = ""
    messages: tuple[dict[str, Any], ...] = ()  # instead of a question
    fields: dict[str, Any] = {}  # inputs of the target's prompt, or of a task with formats
    passages: tuple[str, ...] = ()  # written before the question, numbered from [1]
    expected: tuple[str, ...] = ()  # each of them is right
    pattern: str = ""  # a regular expression that a right answer has
    schema: dict[str, Any] | None = None  # JSON Schema of the answer
    choices: tuple[str, ...] = ()  # continuations of the question; the first is right
    continuation: str = ""  # a text whose likelihood after the question is measured
    swap: tuple[str, str] | None = None  # two words for {who} in the question
    sources: tuple[str, ...] = ()  # file names that are to be cited
    refuse: bool | None = None  # whether a refusal is the right answer
    cluster: str = ""
    tags: tuple[str, ...] = ()

    def turns(self) -> list[dict[str, Any]]:
        """The messages to be sent."""
        if self.messages:
            return list(self.messages)
        numbered = [f"[{number}] {text}" for number, text in enumerate(self.passages, 1)]
        text = "\n\n".join([*numbered, self.question])
        return [{"role": "user", "content": text}]

    def hits(self) -> list[Hit]:
        """The passages as a search would have found them."""
        return [
            Hit(passage=i, file="", filename="", heading="", text=text, start=0, end=len(text),
                attributes={})
            for i, text in enumerate(self.passages)
        ]  # fmt: skip

    @property
    def group(self) -> str:
        return self.cluster or self.id


class Answer(msgspec.Struct, frozen=True):
    text: str
    sources: frozenset[str] = frozenset()  # file names of its citations
