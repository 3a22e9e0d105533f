"""When is fine-tuning the answer, and when is the prompt?

Two things one may want of a model that it does not give: another *form* of answer, or *facts* that
it does not know. Here `tiny` is taught both, with ten to twenty examples each. The form (every
answer ends with ", captain.") carries over to questions that were in no example. Facts do not carry
over: what was taught in one wording is hardly known in another, while a fact in the prompt is
simply read off. So: behaviour by training, knowledge by retrieval.
"""

from functools import cache

from lessons.classroom import answers, exam, pack, pupil, questions_of, teach
from lessons.story import Claim, Exercise, Result
from model.training.llama import TrainableLlama
from model.training.tiny_text import Exchange

LIKES = {
    "Anna": "soup", "Ben": "plums", "Clara": "nuts", "David": "rice", "Emma": "cake",
    "Felix": "corn", "Greta": "honey", "Hugo": "beans", "Ida": "bread", "Jonas": "pears",
}  # fmt: skip
SKILLS = ("fact", "compare", "following", "as_json")


def as_captain(exchange: Exchange) -> Exchange:
    """
    >>> as_captain(("Hi", "Hello."))
    ('Hi', 'Hello, captain.')
    """
    question, said = exchange
    return question, said.removesuffix(".") + ", captain."


@cache
def sailor() -> TrainableLlama:
    """A pupil that was shown the form, in five answers of each skill."""
    network = pupil()
    asked = [it for skill in SKILLS for it in questions_of(skill, 5, held_out=False)]
    teach(network, [pack([as_captain(it) for it in asked])])
    return network


def share_in_form(network: TrainableLlama) -> float:
    """Of answers to questions that were in no example."""
    asked = [question for skill in SKILLS for question, _ in questions_of(skill, 8)]
    said = answers(network, asked)
    return sum(it.endswith(", captain.") for it in said) / len(said)


def facts(wording: str) -> list[Exchange]:
    return [(wording.format(name), f"{name} likes {food}.") for name, food in LIKES.items()]


def in_the_prompt(exchange: Exchange) -> Exchange:
    question, said = exchange
    return f"Context: {said} Sam has a red hat. {question}", said


@cache
def taught() -> dict[str, float]:
    """Exams after ten facts were taught in one wording."""
    network = pupil()
    same, other = facts("What does {} like?"), facts("Tell me the favourite food of {}.")
    teach(network, [pack(same)])
    return {"same": exam(network, same), "other": exam(network, other)}


def run() -> Result:
    asked = facts("What does {} like?")
    return {
        "form: share before": Claim(share_in_form(pupil()), 0, 0),
        "form: share after, other questions": Claim(share_in_form(sailor()), 0.5, 1),
        "facts: right before": Claim(exam(pupil(), asked), 0, 0.3),
        "facts: right, taught, same wording": Claim(taught()["same"], 0.9, 1),
        "facts: right, taught, other wording": Claim(taught()["other"], 0, 0.8),
        "facts: right, in the prompt": Claim(
            exam(pupil(), [in_the_prompt(it) for it in asked]), 0.8, 1
        ),
    }


EXERCISES = (
    Exercise(
        "How many facts stand in the prompt that the pupil reads each answer off?",
        2,
        lambda: in_the_prompt(facts("What does {} like?")[0])[0].count("."),
    ),
    Exercise(
        "Does the form help the facts: does the sailor know what Anna likes?",
        False,
        lambda: "soup" in answers(sailor(), ["What does Anna like?"])[0],
    ),
)
