"""Files of examples: OpenAI's chat and preference JSONL, TRL's preferences, ShareGPT, Alpaca.

Every form becomes a Row; whatever is wrong with a line becomes a Problem with its number. Nothing
is dropped in silence. Leaves out tokens (`examples`) and what rows say together (`audit`).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Message = dict[str, Any]  # role, content, and OpenAI's weight (0 or 1) where it was given

SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "system": "system",
}  # fmt: skip


class Row(NamedTuple):
    """A conversation, or with `rejected` a prompt and two answers to it."""

    line: int  # from 1; in a JSON array the item's number
    messages: list[Message]  # with the (chosen) answer
    rejected: str | None = None
    source: str = ""

    @property
    def text(self) -> str:
        """All that is said, one message a line."""
        return "\n".join(message["content"] for message in self.messages)

    @property
    def prompt(self) -> str:
        """All but the last answer."""
        return "\n".join(message["content"] for message in self.messages[:-1])


class Problem(NamedTuple):
    """A line that cannot be used, and why."""

    line: int
    reason: str


class Unfit(ValueError):
    """One row is wrong; the message says how."""


def read_rows(path: Path) -> tuple[list[Row], list[Problem]]:
    """The rows of `path` in any of the forms, one JSON object a line or all in one array."""
    rows: list[Row] = []
    problems: list[Problem] = []
    for line, text in _items(path.read_text("utf-8-sig")):
        try:
            value = json.loads(text) if isinstance(text, str) else text
            rows.append(_row(line, value))
        except json.JSONDecodeError as error:
            problems.append(Problem(line, f"no JSON: {error.msg} at column {error.colno}"))
        except Unfit as error:
            problems.append(Problem(line, str(error)))
        except KeyError as error:
            problems.append(Problem(line, f"misshapen: {error} is missing"))
        except (TypeError, AttributeError):
            problems.append(Problem(line, "misshapen: a part of it is of another type"))
        except RecursionError:
            problems.append(Problem(line, "nested too deeply"))
    return rows, problems


def _items(text: str) -> Iterator[tuple[int, Any]]:
    if text.lstrip().startswith("["):
        yield from enumerate(json.loads(text), 1)
    else:
        lines = enumerate(text.split("\n"), 1)
        yield from ((line, it) for line, it in lines if it.strip())


def _row(line: int, value: Any) -> Row:
    if not isinstance(value, dict):
        raise Unfit("not a JSON object")
    form = next((form for keys, form in FORMS.items() if keys <= value.keys()), None)
    if form is None:
        raise Unfit(f"no known form: it has {', '.join(sorted(value)) or 'no key'}")
    messages, rejected = form(value)
    check(messages)
    if rejected is not None:
        if not rejected.strip():
            raise Unfit("the rejected answer is empty")
        _check_text(rejected, "the rejected answer")
        if rejected == messages[-1]["content"]:
            raise Unfit("the chosen and the rejected answer are the same")
    return Row(line, messages, rejected, str(value.get("source", "")))


def check(messages: Sequence[Message]) -> None:
    """Raises Unfit unless it is [system] user assistant [user assistant …], nothing empty."""
    for number, message in enumerate(messages, 1):
        content = message.get("content")
        if message.get("tool_calls") or message.get("role") in ("tool", "function"):
            raise Unfit(f"message {number}: calls of tools are not trained on")
        if not isinstance(content, str) or not content.strip():
            raise Unfit(f"message {number} is empty or no text")
        _check_text(content, f"message {number}")
        if message.get("weight", 1) not in (0, 1):
            raise Unfit(f"message {number}: weight is 0 or 1, not {message['weight']!r}")
    roles = [message.get("role") for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
        said = ", ".join(map(str, roles)) or "nothing"
        raise Unfit(f"roles must be user and assistant in turn, to an answer: {said}")
    if not any(m.get("weight", 1) for m in messages if m["role"] == "assistant"):
        raise Unfit("no answer counts: every weight is 0")


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unfit(f"{what} has half a character, a surrogate by itself") from None


def as_openai(row: Row) -> dict[str, Any]:
    """The row in OpenAI's form, whichever form it came in."""
    source = {"source": row.source} if row.source else {}
    if row.rejected is None:
        return {"messages": row.messages, **source}
    return {
        "input": {"messages": row.messages[:-1]},
        "preferred_output": [row.messages[-1]],
        "non_preferred_output": [_answer(row.rejected)],
        **source,
    }


Formed = tuple[list[Message], str | None]


def _chat(value: Mapping[str, Any]) -> Formed:
    return value["messages"], None


def _openai_preference(value: Mapping[str, Any]) -> Formed:
    chosen, rejected = value["preferred_output"], value["non_preferred_output"]
    return [*value["input"]["messages"], _answer(_only(chosen))], _only(rejected)


def _trl_preference(value: Mapping[str, Any]) -> Formed:
    prompt, chosen, rejected = value.get("prompt", []), value["chosen"], value["rejected"]
    if isinstance(chosen, list) and "prompt" not in value:  # the prompt is in both
        prompt, chosen, rejected_prompt, rejected = (
            chosen[:-1],
            chosen[-1:],
            rejected[:-1],
            rejected[-1:],
        )
        if prompt != rejected_prompt:
            raise Unfit("the two answers have different prompts")
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    return [*prompt, _answer(_only(chosen))], _only(rejected)


def _sharegpt(value: Mapping[str, Any]) -> Formed:
    turns = value["conversations"]
    if unknown := {turn["from"] for turn in turns} - SHAREGPT_ROLES.keys():
        raise Unfit(f"nobody is called {min(unknown)!r}")
    return [{"role": SHAREGPT_ROLES[it["from"]], "content": it["value"]} for it in turns], None


def _alpaca(value: Mapping[str, Any]) -> Formed:
    asked = "\n\n".join(filter(None, (value["instruction"], value.get("input"))))
    return [{"role": "user", "content": asked}, _answer(value["output"])], None


def _only(answer: Any) -> str:
    """An answer is a text or a list of one message."""
    if isinstance(answer, list):
        if len(answer) != 1 or answer[0].get("role") != "assistant":
            raise Unfit("an answer to compare is one message of the assistant")
        answer = answer[0]["content"]
    if not isinstance(answer, str):
        raise Unfit("an answer is no text")
    return answer


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


FORMS: dict[frozenset[str], Callable[[Mapping[str, Any]], Formed]] = {
    frozenset({"messages"}): _chat,
    frozenset({"input", "preferred_output", "non_preferred_output"}): _openai_preference,
    frozenset({"chosen", "rejected"}): _trl_preference,
    frozenset({"conversations"}): _sharegpt,
    frozenset({"instruction", "output"}): _alpaca,
}
