"""Text completions, as the official client and evaluation harnesses see them."""

import openai
import pytest


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **more):
    body = {"model": "tiny-random", "prompt": "abc", "max_tokens": 6, "temperature": 0} | more
    body["extra_body"] = {"add_special_tokens": False} | body.get("extra_body", {})
    return client.completions.create(**body)


def test_a_stream_says_what_the_whole_answer_says(client):
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}
    )


@pytest.mark.parametrize(
    "prompt", [["abc", "xyz"], [[97, 98, 99], [120, 121, 122]], ["abc", [120, 121, 122]]]
)
def test_several_prompts(client, prompt):
    both = ask(client, prompt=prompt, n=2, temperature=1, seed=3)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone = ask(client, prompt=prompt[1:], n=2, temperature=1, seed=3)
    assert [c.text for c in both.choices[2:]] == [c.text for c in alone.choices]
    assert both.usage.prompt_tokens == 6
    assert both.usage.completion_tokens == 24
    texts = ["", "", "", ""]
    for chunk in ask(client, prompt=prompt, n=2, temperature=1, seed=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in both.choices]


def test_a_list_of_ids_is_one_prompt(client):
    assert ask(client, prompt=[97, 98, 99]).choices[0].text == ask(client).choices[0].text


@pytest.mark.parametrize("stream", [False, True])
def test_echo_with_logprobs_scores_the_prompt(client, stream):
    body = {"prompt": "hello", "echo": True, "logprobs": 2, "max_tokens": 2, "stream": stream}
    reply = ask(client, **body)
    choices = [chunk.choices[0] for chunk in reply] if stream else reply.choices
    assert "".join(choice.text for choice in choices).startswith("hello")
    tokens = [t for c in choices for t in c.logprobs.tokens]
    scores = [s for c in choices for s in c.logprobs.token_logprobs]
    tops = [t for c in choices for t in c.logprobs.top_logprobs]
    offsets = [o for c in choices for o in c.logprobs.text_offset]
    assert tokens[:5] == list("hello")
    assert offsets == list(range(7))
    assert scores[0] is None
    assert tops[0] is None
    for token, score, top in zip(tokens[1:], scores[1:], tops[1:], strict=True):
        assert score < 0
        assert top[token] == score <= max(top.values())


def test_only_the_prompt_can_be_scored(client):
    reply = ask(client, prompt="hello", echo=True, logprobs=1, max_tokens=0)
    assert reply.choices[0].text == "hello"
    assert len(reply.choices[0].logprobs.tokens) == 5
    assert reply.usage.completion_tokens == 0


def test_the_scores_of_a_prompt_are_those_of_generating_it(client):
    """What was generated greedily gets the same logprobs when it comes back as a prompt."""
    made = ask(client, logprobs=1, max_tokens=8).choices[0]
    echo = ask(client, prompt="abc" + made.text, echo=True, logprobs=1, max_tokens=0).choices[0]
    assert echo.logprobs.token_logprobs[3:] == pytest.approx(made.logprobs.token_logprobs, abs=1e-4)


def test_a_token_that_nobody_wrote_is_not_echoed(client):
    more = {"add_special_tokens": True, "return_token_ids": True}
    choice = ask(client, echo=True, logprobs=0, extra_body=more).choices[0]
    assert choice.prompt_token_ids == [256, 97, 98, 99]
    assert choice.text.startswith("abc")
    assert choice.logprobs.tokens[:3] == ["a", "b", "c"]
    assert choice.logprobs.token_logprobs[0] < 0  # given the token that opens a text


def test_vllms_parameters(client):
    more = {"return_token_ids": True, "prompt_logprobs": 1}
    choice = ask(client, extra_body=more).choices[0]
    assert bytes(choice.token_ids).decode() == choice.text
    assert choice.prompt_token_ids == [97, 98, 99]
    assert choice.prompt_logprobs[0] is None
    assert ask(client, best_of=1).choices
    assert ask(client, suffix="").choices


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, 999]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt": ["a", "x" * 3000]}, "prompt"),
    ],
)
def test_what_is_not_honoured_is_refused(client, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **more)
    assert caught.value.param == param
