"""The engine's logprobs in the forms of OpenAI's chat, OpenAI's completions, and vLLM's prompts."""

from collections.abc import Sequence

from model.engine.logprobs import TokenLogprobs
from model.protocol.answers import ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob
from model.protocol.shapes import Json
from model.tokenizer import Tokenizer


def chat_logprobs(tokenizer: Tokenizer, scored: Sequence[TokenLogprobs]) -> ChatLogprobs:
    """Each token with its bytes, since a token may be half a character."""

    def top(token_id: int, logprob: float) -> TopLogprob:
        data = tokenizer.token_bytes(token_id)
        return TopLogprob(data.decode(errors="replace"), logprob, list(data))

    content = []
    for one in scored:
        chosen = top(one.token_id, one.logprob)
        tops = [top(*pair) for pair in one.top]
        content.append(TokenLogprob(chosen.token, chosen.logprob, chosen.bytes, tops))
    return ChatLogprobs(content)


def completion_logprobs(
    tokenizer: Tokenizer, scored: Sequence[TokenLogprobs | None], token_ids: Sequence[int], at: int
) -> CompletionLogprobs:
    """The older form, by text. `at` is the offset of the first token in the choice's text.

    The first token of an echoed prompt has no logprob: `scored` holds None for it.
    """
    made = CompletionLogprobs([], [], [], [])
    for token_id, one in zip(token_ids, scored, strict=True):
        text = tokenizer.token_text(token_id)
        made.tokens.append(text)
        made.text_offset.append(at)
        at += len(text)
        made.token_logprobs.append(None if one is None else one.logprob)
        tops = None if one is None else {tokenizer.token_text(i): p for i, p in one.top}
        if one is not None and tops is not None:
            tops.setdefault(text, one.logprob)
        made.top_logprobs.append(tops)
    return made


def prompt_logprobs(
    tokenizer: Tokenizer, scored: Sequence[TokenLogprobs | None]
) -> list[Json | None]:
    """Per position the token itself and the likeliest ones, by id."""

    def entry(token_id: int, logprob: float, rank: int) -> Json:
        text = tokenizer.token_text(token_id)
        return {"logprob": logprob, "rank": rank, "decoded_token": text}

    listed: list[Json | None] = []
    for one in scored:
        if one is None:
            listed.append(None)
            continue
        found = {str(i): entry(i, p, rank) for rank, (i, p) in enumerate(one.top, 1)}
        found[str(one.token_id)] = entry(one.token_id, one.logprob, one.rank)
        listed.append(found)
    return listed
