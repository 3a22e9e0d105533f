"""What chat answers as the items of a response: messages, reasoning, calls of functions.

One builder makes the response; a stream is the events of its making
(platform.openai.com/docs/api-reference/responses-streaming). A plain answer is built the same way
and its events are thrown away.
"""

import secrets
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from gateway.errors import GatewayError
from model.protocol.sse import encode_event

Json = dict[str, Any]


class Kind(NamedTuple):
    """A kind of text: the item and part that it stands in, the event that carries it."""

    item: str
    part: str
    event: str
    field: str = "text"


TEXT = Kind("message", "output_text", "response.output_text")
REASONING = Kind("reasoning", "reasoning_text", "response.reasoning_text")
KINDS = {
    "reasoning_content": REASONING,
    "reasoning": REASONING,
    "content": TEXT,
    "refusal": Kind("message", "refusal", "response.refusal", "refusal"),
}  # field of a chat delta → kind
PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
ECHOED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
}  # what a response repeats of its request, and what stands for what was left out


class Answer:
    """Built from chat's chunks by `take`, or from its body by `of_body`."""

    def __init__(self, asked: Json) -> None:
        self.is_begun = False
        self._events = 0
        self._item: Json | None = None  # the one that text goes into
        self._kind: Kind | None = None  # of the part that is open
        self._texts: list[str] = []
        self._calls: dict[int, Json] = {}  # index in chat → item; open until the end
        self._finish = ""
        self._response: Json = {
            "id": _name("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": asked["model"],
            "output": [],
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            "usage": None,
            **{k: asked[k] if asked.get(k) is not None else v for k, v in ECHOED.items()},
        }

    def of_body(self, body: Json) -> bytes:
        """The response to a request that did not want a stream."""
        choice = body["choices"][0]
        self._note(body)
        for _ in (*self._add(choice["message"]), *self._end(choice.get("finish_reason") or "")):
            pass
        return msgspec.json.encode(self._response)

    def take(self, data: bytes) -> Iterator[bytes]:
        """The events that an event of chat's stream makes."""
        if data.strip() == b"[DONE]":
            yield from self._end(self._finish)
            yield self._whole("incomplete" if self._finish in REASONS else "completed")
            return
        chunk: Json = msgspec.json.decode(data)
        self._note(chunk)
        if not self.is_begun:
            self.is_begun = True
            yield self._whole("created")
            yield self._whole("in_progress")
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) == 0:
                yield from self._add(choice.get("delta") or {})
                self._finish = choice.get("finish_reason") or self._finish

    def failed(self, error: GatewayError) -> bytes:
        """The last event of a stream that broke off: with what was said, and no more."""
        self._fill_part()
        for item in self._response["output"]:
            if item["status"] == "in_progress":
                item["status"] = "incomplete"
        self._response["status"] = "failed"
        self._response["error"] = {"code": error.code or error.type, "message": error.message}
        return self._whole("failed")

    def _note(self, said: Json) -> None:
        self._response["model"] = said.get("model") or self._response["model"]
        if usage := said.get("usage"):
            self._response["usage"] = _usage(usage)

    def _add(self, delta: Json) -> Iterator[bytes]:
        for field, kind in KINDS.items():
            if text := delta.get(field):
                yield from self._say(kind, text)
        for i, call in enumerate(delta.get("tool_calls") or ()):
            yield from self._call(call.get("index", i), call)
        for annotation in delta.get("annotations") or ():
            yield from self._cite(annotation)

    def _say(self, kind: Kind, text: str) -> Iterator[bytes]:
        if self._kind is not kind:
            yield from self._open(kind)
        self._texts.append(text)
        yield self._in_part(f"{kind.event}.delta", delta=text, **_logprobs(kind))

    def _open(self, kind: Kind) -> Iterator[bytes]:
        yield from self._close_part()
        if self._item is None or self._item["type"] != kind.item:
            yield from self._close_item()
            more: Json = {"role": "assistant"} if kind.item == "message" else {"summary": []}
            self._item = self._new_item(kind.item, content=[], **more)
            yield self._of_item("added", self._item)
        part: Json = {"type": kind.part, kind.field: ""}
        if kind is TEXT:
            part |= {"annotations": [], "logprobs": []}
        self._item["content"].append(part)
        self._kind = kind
        yield self._in_part("response.content_part.added", part=part)

    def _close_part(self) -> Iterator[bytes]:
        part = self._fill_part()
        kind, self._kind = self._kind, None
        if kind is None or part is None:
            return
        self._texts.clear()
        said = {kind.field: part[kind.field], **_logprobs(kind)}
        yield self._in_part(f"{kind.event}.done", **said)
        yield self._in_part("response.content_part.done", part=part)

    def _fill_part(self) -> Json | None:
        """The part that is open, with all of its text so far."""
        if self._kind is None or self._item is None:
            return None
        part: Json = self._item["content"][-1]
        part[self._kind.field] = "".join(self._texts)
        return part

    def _close_item(self, status: str = "completed") -> Iterator[bytes]:
        item, self._item = self._item, None
        if item is not None:
            item["status"] = status
            yield self._of_item("done", item)

    def _call(self, index: int, call: Json) -> Iterator[bytes]:
        function = call.get("function") or {}
        item = self._calls.get(index)
        if item is None:
            yield from self._close_part()
            yield from self._close_item()
            item = self._calls[index] = self._new_item(
                "function_call", call_id=call.get("id") or _name("call"), name="", arguments=""
            )
            item["name"] = function.get("name") or ""
            yield self._of_item("added", item)
        if arguments := function.get("arguments"):
            item["arguments"] += arguments
            yield self._about("response.function_call_arguments.delta", item, delta=arguments)

    def _cite(self, annotation: Json) -> Iterator[bytes]:
        if self._kind is TEXT and self._item is not None:
            known = self._item["content"][-1]["annotations"]
            known.append(annotation)
            more = {"annotation": annotation, "annotation_index": len(known) - 1}
            yield self._in_part("response.output_text.annotation.added", **more)

    def _end(self, finish: str) -> Iterator[bytes]:
        reason = REASONS.get(finish)
        status = "incomplete" if reason else "completed"
        yield from self._close_part()
        yield from self._close_item(status)
        for item in self._calls.values():
            item["status"] = status
            said = {"arguments": item["arguments"], "name": item["name"]}
            yield self._about("response.function_call_arguments.done", item, **said)
            yield self._of_item("done", item)
        self._response["status"] = status
        self._response["incomplete_details"] = {"reason": reason} if reason else None

    def _new_item(self, kind: str, **fields: Any) -> Json:
        item = {"id": _name(PREFIXES[kind]), "type": kind, "status": "in_progress", **fields}
        self._response["output"].append(item)
        return item

    def _whole(self, what: str) -> bytes:
        return self._event(f"response.{what}", response=self._response)

    def _of_item(self, what: str, item: Json) -> bytes:
        place = self._response["output"].index(item)
        return self._event(f"response.output_item.{what}", output_index=place, item=item)

    def _in_part(self, kind: str, **fields: Any) -> bytes:
        assert self._item is not None  # noqa: S101 - a part is in an item
        place = len(self._item["content"]) - 1
        return self._about(kind, self._item, content_index=place, **fields)

    def _about(self, kind: str, item: Json, **fields: Any) -> bytes:
        place = self._response["output"].index(item)
        return self._event(kind, item_id=item["id"], output_index=place, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._events, **fields}
        self._events += 1
        return encode_event(msgspec.json.encode(event), event=kind)


def _name(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


def _logprobs(kind: Kind) -> Json:
    return {"logprobs": []} if kind is TEXT else {}


def _usage(said: Json) -> Json:
    cached = (said.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (said.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return {
        "input_tokens": said.get("prompt_tokens", 0),
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": said.get("completion_tokens", 0),
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": said.get("total_tokens", 0),
    }
