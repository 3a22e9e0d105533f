"""What the client has been given so far, and what can follow when the upstream fails after that.

Until the first content reaches the client nothing is final: what came is kept here and thrown away
with the attempt. From then on the policy holds: "error" ends the stream; "continue" sends the text
so far as the beginning of the answer to a target that can go on; "hold" has given nothing before
the answer was complete, so it never comes to that.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from gateway.routing.frames import Choice, Frame, count
from gateway.upstream import UpstreamError
from model.protocol.sse import encode_event

Recovery = Literal["error", "continue", "hold"]

COMPLETE = ("done", "body")
FINAL = (*COMPLETE, "content", "finish")
HOLD_BYTES = 64 << 20
# A grammar starts anew with a continuation, so it would be obeyed twice.
GRAMMARS = (
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
)


class Delivery:
    def __init__(self, policy: Recovery) -> None:
        self.is_committed = False
        self._policy = policy
        self._held: list[Frame] = []
        self._size = 0
        self._text: list[str] = []
        self._num_prefilled = 0
        self._is_plain = True  # nothing but the text of one choice was given
        self._first = b""
        self._identity: dict[str, Any] | None = None  # of the answer that is being continued

    def take(self, frames: list[Frame]) -> list[Frame]:
        """The frames that may go to the client now that these are here."""
        if self.is_committed and self._policy != "continue":
            return frames
        return [out for frame in frames for out in self._take(frame)]

    def _take(self, frame: Frame) -> Iterable[Frame]:
        if self._policy == "continue" and frame.choices:
            self._remember(frame)
        if self._identity is not None:
            return self._adapt(frame, self._identity)
        if self.is_committed:
            return (frame,)
        self._hold(frame)
        if frame.kind not in (COMPLETE if self._policy == "hold" else FINAL):
            return ()
        self.is_committed, self._first = True, frame.data
        held, self._held = self._held, []
        return held

    def drop(self) -> None:
        """Forget a failed attempt of which nothing was given."""
        self._held, self._size, self._text, self._is_plain = [], 0, [], True

    def resume(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """`body`, asking to go on where the text breaks off; None where that cannot be asked."""
        text = "".join(self._text)
        self._num_prefilled = len(self._text)
        if not text or not self._is_plain or any(body.get(name) for name in GRAMMARS):
            return None
        longer = _extended(body, text)
        for name in ("max_tokens", "max_completion_tokens"):
            if longer is not None and isinstance(limit := body.get(name), int):
                longer[name] = limit - len(self._text)
                if longer[name] <= 0:
                    return None
        if self._identity is None:
            first = msgspec.json.decode(self._first)
            self._identity = {
                name: first[name] for name in ("id", "created", "model") if name in first
            }
        return longer

    def _hold(self, frame: Frame) -> None:
        self._held.append(frame)
        self._size += len(frame.raw)
        if self._size > HOLD_BYTES:
            raise UpstreamError("too_large", f"more than {HOLD_BYTES} bytes to hold back")

    def _remember(self, frame: Frame) -> None:
        self._is_plain = self._is_plain and all(map(_is_plain, frame.choices))
        if frame.text:
            self._text.append(frame.text)

    def _adapt(self, frame: Frame, identity: dict[str, Any]) -> Iterable[Frame]:
        """A frame of a continuation as one more of the answer that it continues."""
        if frame.kind == "other":
            return ()
        if frame.kind == "done":
            return (frame,)
        chunk = msgspec.json.decode(frame.data) | identity
        if frame.usage is not None:
            chunk["usage"] = self._usage_of_both(frame.usage)
        data = msgspec.json.encode(chunk)
        return (msgspec.structs.replace(frame, data=data, raw=encode_event(data)),)

    def _usage_of_both(self, usage: dict[str, Any]) -> dict[str, Any]:
        """What was sent as a prefill was prompt to the second upstream, but answer to the client.

        The first upstream gave no count before it broke off; a piece of text counts as a token.
        """
        prompt = max(0, count(usage.get("prompt_tokens")) - self._num_prefilled)
        completion = count(usage.get("completion_tokens")) + self._num_prefilled
        counts = {"prompt_tokens": prompt, "completion_tokens": completion}
        return usage | counts | {"total_tokens": prompt + completion}


def _is_plain(choice: Choice) -> bool:
    said = {name for name, value in (choice.delta or {}).items() if value}
    return choice.index == 0 and said <= {"role", "content"}


def _extended(body: dict[str, Any], text: str) -> dict[str, Any] | None:
    prompt, messages = body.get("prompt"), body.get("messages")
    if isinstance(prompt, str) and not body.get("echo"):
        return {**body, "prompt": prompt + text}
    if not isinstance(messages, list):
        return None
    if body.get("continue_final_message"):
        begun = messages[-1].get("content")
        if not isinstance(begun, str):
            return None
        messages, text = messages[:-1], begun + text
    prefill = {"role": "assistant", "content": text}
    flags = {"continue_final_message": True, "add_generation_prompt": False}
    return {**body, **flags, "messages": [*messages, prefill]}
