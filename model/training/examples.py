"""From rows to tokens: what the model reads, and which tokens of it count.

Only what the assistant says counts, with the token that ends its turn. Texts pass through the
checkpoint's own chat template and are cut into tokens where a server's prompt would end, so that
training sees the ids that serving will. Leaves out files (`rows`) and losses.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from model.protocol.templates import Renderer, TemplateError
from model.tokenizer import Tokenizer
from model.training.llama import Pack
from model.training.rows import Message, Problem, Row, Unfit
from model.weights.checkpoint import Checkpoint


class Example(NamedTuple):
    """Token ids, and what each counts as something to predict."""

    ids: list[int]
    weights: list[float]


Group = tuple[Example, ...]  # what must stay in one pack: one example, or chosen and rejected


class Encoder:
    """Rows as examples, by one checkpoint's template and tokenizer."""

    def __init__(self, checkpoint: Checkpoint, renderer: Renderer, max_tokens: int) -> None:
        if checkpoint.chat_template is None:
            raise ValueError(f"{checkpoint.name} has no chat template to train with")
        self._template = checkpoint.chat_template
        self._tokenizer: Tokenizer = checkpoint.tokenizer
        self._stops = checkpoint.stop_ids
        self._specials = [self._tokenizer.token_text(i) for i in self._tokenizer.special_ids]
        self._renderer = renderer
        self._max_tokens = max_tokens

    def encode(self, rows: Sequence[Row]) -> tuple[list[Group], list[Problem]]:
        """Examples of the rows that fit, and why the others do not."""
        groups: list[Group] = []
        problems: list[Problem] = []
        for row in rows:
            try:
                groups.append(self.group(row))
            except (Unfit, TemplateError) as error:
                problems.append(Problem(row.line, str(error)))
        return groups, problems

    def group(self, row: Row) -> Group:
        """One example, or the chosen and the rejected one. Raises Unfit or TemplateError."""
        if row.rejected is None:
            return (self.example(row.messages),)
        rejected = {"role": "assistant", "content": row.rejected}
        both = (row.messages, [*row.messages[:-1], rejected])
        return tuple(self.example(messages, only_last=True) for messages in both)

    def example(self, messages: Sequence[Message], only_last: bool = False) -> Example:
        """A conversation up to its last answer's end."""
        if special := next((s for s in self._specials for m in messages if s in m["content"]), ""):
            raise Unfit(f"a message contains the control token {special}")
        ids: list[int] = []
        weights: list[float] = []
        seen = ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            is_last = index == len(messages) - 1
            counts = float(message.get("weight", 1) and (is_last or not only_last))
            prompt = self._render(messages[:index], True)
            whole = self._render(messages[: index + 1], False)
            if not (prompt.startswith(seen) and whole.startswith(prompt)):
                raise Unfit("the chat template rewrites what was said before an answer")
            asked = self._tokenizer.encode(prompt[len(seen) :])
            said = self._tokenizer.encode(whole[len(prompt) :])
            end = next((i + 1 for i, it in enumerate(said) if it in self._stops), len(said))
            ids += asked + said
            weights += [0.0] * len(asked) + [counts] * end + [0.0] * (len(said) - end)
            seen = whole
        last = max(i for i, weight in enumerate(weights) if weight)
        if last >= self._max_tokens:
            raise Unfit(f"{last + 1} tokens, at most {self._max_tokens} are trained on")
        return Example(ids[: last + 1], weights[: last + 1])

    def _render(self, messages: Sequence[Message], is_prompt: bool) -> str:
        name = self._tokenizer.token_text
        bos, eos = self._tokenizer.bos_id, self._tokenizer.eos_id
        variables = {
            "messages": [{"role": m["role"], "content": m["content"]} for m in messages],
            "add_generation_prompt": is_prompt, "tools": None, "documents": None,
            "bos_token": "" if bos is None else name(bos),
            "eos_token": "" if eos is None else name(eos),
        }  # fmt: skip
        return self._renderer.render(self._template, variables, strict=False)


def batches(
    groups: Sequence[Group], size: int, pack_tokens: int, seed: int
) -> Callable[[int], list[Pack]]:
    """Step → its packs: `size` groups, in an order that is drawn anew for every epoch.

    A function of the step alone, so a run that goes on meets the same batches.
    """
    per_epoch = math.ceil(len(groups) / size)  # the last one of an epoch may be smaller

    def batch(step: int) -> list[Pack]:
        epoch, at = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(groups))
        chosen = [groups[i] for i in order[at * size : (at + 1) * size]]
        return [Pack.of([*example]) for example in _cut(chosen, pack_tokens)]

    return batch


def num_steps(groups: Sequence[Group], size: int, epochs: float) -> int:
    """At least one."""
    return max(1, math.floor(math.ceil(len(groups) / size) * epochs))


def _cut(groups: Sequence[Group], pack_tokens: int) -> list[list[Example]]:
    """Neighbours together as long as they fit; a group is never parted."""
    packs: list[list[Example]] = [[]]
    room = pack_tokens
    for group in groups:
        length = sum(len(example.ids) for example in group)
        if length > room and packs[-1]:
            packs.append([])
            room = pack_tokens
        packs[-1] += group
        room -= length
    return packs
