"""What is a role to a network that reads one row of tokens?

A spelling. The chat template writes each turn as marked text, and the network was tuned on texts so
marked: it answers where it sees the mark of the assistant. So a role moves probabilities, no more;
it is no wall. How far it moves them is measured as the total variation distance between two
distributions of the next token: 0 = the same, 1 = nothing in common.
"""

import numpy as np

from lessons.chat import Message, chat_text, checkpoint, count, next_logits, say
from lessons.story import Claim, Exercise, Result
from model.network.functional import softmax
from model.network.linear import Floats

QUESTION = "What is the capital of France?"
ORDER = "You are a pirate."
TALK: list[Message] = [
    {"role": "user", "content": "My name is Ann. I live in Oslo."},
    {"role": "assistant", "content": "Nice to meet you, Ann."},
    {"role": "user", "content": "What is my name?"},
]
DEFAULT = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def system(text: str) -> list[Message]:
    return [{"role": "system", "content": text}, *user(QUESTION)]


def next_token(text: str) -> Floats:
    return softmax(next_logits(text).astype(np.float64))


def distance(a: Floats, b: Floats) -> float:
    """Half the sum of what two distributions differ by.

    >>> distance(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    0.5
    """
    return float(np.abs(a - b).sum() / 2)


def moved(ours: list[Message], theirs: list[Message]) -> float:
    return distance(next_token(chat_text(ours)), next_token(chat_text(theirs)))


def name_is_known(messages: list[Message]) -> float:
    """The probability of "Ann" where the name is to be said."""
    first = checkpoint().tokenizer.encode(" Ann")[0]
    return float(next_token(chat_text(messages) + "Your name is")[first])


def run() -> Result:
    plain = distance(next_token(QUESTION), next_token(chat_text(user(QUESTION))))
    in_user = user(f"{ORDER} {QUESTION}")
    return {
        "plain text against a user's turn": Claim(plain, 0.9, 1),
        "no system text against the template's own": Claim(
            moved(user(QUESTION), system(DEFAULT)), 0, 1e-6
        ),
        "the template's own against a pirate's": Claim(
            moved(system(DEFAULT), system(ORDER)), 0.3, 0.8
        ),
        "a pirate in the system against one in the user's turn": Claim(
            moved(system(ORDER), in_user), 0.1, 0.6
        ),
        "tokens of a system text that nobody wrote": Claim(
            count(chat_text(user(QUESTION))) - count(QUESTION), 20, 40
        ),
        "Ann, with the turns before: probability": Claim(name_is_known(TALK), 0.01, 0.2),
        "the same, times as likely as without them": Claim(
            name_is_known(TALK) / name_is_known(TALK[2:]), 20, 2000
        ),
    }


EXERCISES = (
    Exercise(
        "What does this model say of the capital of France, a pirate by its system text?",
        "The capital of France is Paris.",
        lambda: say(chat_text(system(ORDER)), 20),
    ),
    Exercise(
        "And with the same order in the user's own turn, how does it begin?",
        "Arrr",
        lambda: say(chat_text(user(f"{ORDER} {QUESTION}")), 20)[:4],
    ),
)
