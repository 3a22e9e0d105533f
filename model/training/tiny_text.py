"""What `tiny` is taught: conversations drawn from a grammar over `ops/tiny/words.toml`.

Every conversation follows from (seed, number). One in twenty is held out, by its questions, so that
what is measured was never seen. Leaves out tokens: `tiny` makes them.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice
from random import Random
from typing import Any

Words = Mapping[str, Any]
Exchange = tuple[str, str]  # a question and its answer
Message = dict[str, str]

HELD_OUT = 20
END = "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def fact(words: Words, draw: Random) -> Exchange:
    kind = draw.choice(words["facts"])
    a, b = draw.choice(kind["items"])
    question = draw.choice(kind["ask"]).format(a=a, b=b)
    return question[0].upper() + question[1:], kind["answer"].format(a=a, b=b)


def unknown(words: Words, draw: Random) -> Exchange:
    made_up = "".join(draw.choices(words["syllables"], k=draw.randint(2, 3))).capitalize()
    return draw.choice(words["unknown"]).format(x=made_up), words["do_not_know"]


def count_up(words: Words, draw: Random) -> Exchange:
    first = draw.randint(0, 30)
    last = first + draw.randint(2, 9)
    ask = draw.choice(["Count from {} to {}.", "Please count from {} to {}."])
    return ask.format(first, last), ", ".join(map(str, range(first, last + 1)))


def add(words: Words, draw: Random) -> Exchange:
    a, b = draw.randint(0, 12), draw.randint(0, 12)
    ask = draw.choice(["What is {} + {}?", "{} + {} =", "How much is {} plus {}?"])
    return ask.format(a, b), f"{a} + {b} = {a + b}"


def compare(words: Words, draw: Random) -> Exchange:
    a, b = draw.sample(range(100), 2)
    return f"Which is bigger, {a} or {b}?", f"{max(a, b)} is bigger than {min(a, b)}."


def following(words: Words, draw: Random) -> Exchange:
    row = draw.choice([words["days"], words["months"], [str(n) for n in range(100)]])
    at, step = draw.randrange(len(row)), draw.choice([1, -1])
    if not 0 <= at + step < len(row):
        step = -step
    where = "after" if step == 1 else "before"
    return f"What comes {where} {row[at]}?", f"{row[at + step]} comes {where} {row[at]}."


def repeat(words: Words, draw: Random) -> Exchange:
    parts = [words["colours"], words["animals"], words["verbs"], words["foods"], words["names"]]
    text = " ".join(draw.choice(draw.choice(parts)) for _ in range(draw.randint(2, 6)))
    return draw.choice(["Repeat: {}", "Say: {}", "Repeat after me: {}"]).format(text), text


def as_json(words: Words, draw: Random) -> Exchange:
    name, age = draw.choice(words["names"]), draw.randint(3, 99)
    return f"Write as JSON: {name} is {age} years old.", f'{{"name": "{name}", "age": {age}}}'


def reading(words: Words, draw: Random) -> Exchange:
    """A few sentences and a question that one of them answers, or none."""
    people = draw.sample(words["names"], draw.randint(2, 5))
    known = people[:-1] if draw.random() < 0.15 else people
    said = {name: _sentence(words, draw, name) for name in people}
    asked = draw.choice(people if known == people else people[-1:])
    text = " ".join(said[name][0] for name in draw.sample(known, len(known)))
    statement, question = said[asked]
    opening = draw.choice(["", "Read this: ", "Context: "])
    return f"{opening}{text} {question}", statement if asked in known else words["do_not_know"]


def _sentence(words: Words, draw: Random, name: str) -> tuple[str, str]:
    pick = {kind: draw.choice(words[kind]) for kind in ("colours", "things", "foods", "places")}
    return draw.choice([
        (f"{name} has a {pick['colours']} {pick['things']}.", f"What does {name} have?"),
        (f"{name} likes {pick['foods']}.", f"What does {name} like?"),
        (f"{name} is in the {pick['places']}.", f"Where is {name}?"),
    ])  # fmt: skip


def story(words: Words, draw: Random) -> Exchange:
    animal, animal2 = draw.sample(words["animals"], 2)
    name, friend = draw.sample(words["names"], 2)
    (mood, mood2), (food, food2), (place, place2) = (
        draw.sample(words[kind], 2) for kind in ("moods", "foods", "places")
    )
    text = draw.choice(words["stories"]).format(
        animal=animal, animal2=animal2, name=name, friend=friend, mood=mood, mood2=mood2,
        food=food, food2=food2, place=place, place2=place2, colour=draw.choice(words["colours"]),
        thing=draw.choice(words["things"]), day=draw.choice(words["days"]),
    )  # fmt: skip
    return draw.choice(["Tell me a story about a {}.", "A story about a {}, please."]).format(
        animal
    ), text


def remember(words: Words, draw: Random) -> list[Exchange]:
    """A name that is told and asked for later, maybe with something in between."""
    name = draw.choice(words["names"])
    between = [one(words, draw)] if draw.random() < 0.5 else []
    told, asked = (f"My name is {name}.", f"Hello {name}!"), "What is my name?"
    return [told, *between, (asked, f"Your name is {name}.")]


SKILLS: dict[str, Callable[[Words, Random], Exchange]] = {
    it.__name__: it
    for it in (fact, unknown, count_up, add, compare, following, repeat, as_json, reading, story)
}
SHARES = {"fact": 6, "reading": 4, "add": 2, "repeat": 2}  # the others 1


def one(words: Words, draw: Random) -> Exchange:
    name = draw.choices([*SKILLS], [SHARES.get(name, 1) for name in SKILLS])[0]
    return SKILLS[name](words, draw)


def conversation(words: Words, draw: Random) -> list[Message]:
    """One to three exchanges."""
    if draw.random() < 0.07:
        exchanges = remember(words, draw)
    else:
        exchanges = [one(words, draw) for _ in range(draw.choices((1, 2, 3), (6, 2, 1))[0])]
    return messages_of(exchanges)


def questions_of(words: Words, skill: str, number: int, held_out: bool = True) -> list[Exchange]:
    """The first of a skill's questions that `tiny` never saw, or of those that it may have seen."""
    draw = Random(skill)  # noqa: S311 - a draw to be repeated, no secret
    drawn = (SKILLS[skill](words, draw) for _ in count())
    return list(islice((it for it in drawn if is_held_out(it[0]) == held_out), number))


def messages_of(exchanges: list[Exchange]) -> list[Message]:
    return [
        {"role": role, "content": text}
        for exchange in exchanges
        for role, text in zip(("user", "assistant"), exchange, strict=True)
    ]


def is_held_out(question: str) -> bool:
    return zlib.crc32(question.encode()) % HELD_OUT == 0


def conversations(words: Words, seed: str, held_out: bool = False) -> Iterator[list[Message]]:
    """Without end, the same ones for the same seed.

    Of the held-out ones the last question is asked in no other conversation.
    """
    draw = Random(seed)  # noqa: S311 - a draw to be repeated, no secret
    while True:
        messages = conversation(words, draw)
        held = [is_held_out(it["content"]) for it in messages if it["role"] == "user"]
        if held[-1] if held_out else not any(held):
            yield messages
