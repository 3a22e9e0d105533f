"""What does the network read, if not letters and not words?

Pieces. A tokenizer starts from bytes and joins the pair that was most frequent in its training
text, again and again; the list of those joins is the vocabulary. So common words are one piece,
rare ones are several, and hardly anything is unknown, as a byte is there in the end. (Hardly: 21
of the 256 bytes never came up when this vocabulary was made, so six control characters vanish.)
What it costs to say something is counted in these pieces, and differs from language to language.
"""

from functools import cache
from itertools import pairwise

from lessons.story import Claim, Exercise, Result
from model.tokenizer import Detokenizer, Tokenizer
from model.weights import load_llama

ENGLISH = "The river was quiet, and the old bridge carried nothing but the wind and a few birds."
GERMAN = "Der Fluss war still, und die alte Brücke trug nichts als den Wind und ein paar Vögel."
JAPANESE = "川は静かで、古い橋が運んでいたのは風と数羽の鳥だけだった。"


@cache
def tokenizer() -> Tokenizer:
    return load_llama("smollm2").tokenizer


def pieces(text: str) -> list[str]:
    """The text cut as the network sees it; a piece owns the space before it.

    >>> pieces("The capital of France")
    ['The', ' capital', ' of', ' France']
    >>> pieces("Glassgate")
    ['Gl', 'ass', 'gate']
    """
    return [tokenizer().decode([token]) for token in tokenizer().encode(text)]


def bytes_per_token(text: str) -> float:
    """How much text one token carries: the higher, the cheaper the language.

    >>> round(bytes_per_token("ordinary words are cheap"), 1)
    6.0
    """
    return len(text.encode()) / len(tokenizer().encode(text))


def join(parts: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """One step of byte-pair encoding: every neighbouring `pair` becomes one part.

    >>> join([b"a", b"b", b"a", b"b", b"a"], (b"a", b"b"))
    [b'ab', b'ab', b'a']
    """
    joined: list[bytes] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def learn(text: str, num_joins: int) -> list[tuple[bytes, bytes]]:
    """The joins that byte-pair encoding learns from a text, most frequent pair first.

    >>> learn("low lower lowest", 2)
    [(b'l', b'o'), (b'lo', b'w')]
    """
    parts = [bytes([byte]) for byte in text.encode()]
    joins: list[tuple[bytes, bytes]] = []
    for _ in range(num_joins):
        pairs = list(pairwise(parts))
        best = max(dict.fromkeys(pairs), key=pairs.count)
        joins.append(best)
        parts = join(parts, best)
    return joins


def streamed(text: str) -> list[str]:
    """The text as a client sees it arrive: a character is held back until its last byte is here.

    >>> streamed("a🌉")
    ['a', '', '', '🌉']
    """
    stream = Detokenizer(tokenizer())
    return [stream.push(token) for token in tokenizer().encode(text)]


def run() -> Result:
    english, german = bytes_per_token(ENGLISH), bytes_per_token(GERMAN)
    japanese = len(tokenizer().encode(JAPANESE)) / len(JAPANESE)
    digits = len(tokenizer().encode("1234567890"))
    everything = "".join(map(chr, range(0x800)))
    lost = len(everything) - len(tokenizer().decode(tokenizer().encode(everything)))
    return {
        "bytes a token, English": Claim(english, 3.5, 5.5),
        "bytes a token, German": Claim(german, 1.8, 3.2),
        "English is cheaper than German by a factor": Claim(english / german, 1.3, 3.0),
        "tokens a character, Japanese": Claim(japanese, 1.0, 3.0),
        "tokens of ten digits (each on its own)": Claim(digits, 10, 10),
        "characters of 2,048 that a round trip loses": Claim(lost, 6, 6),
    }


EXERCISES = (
    Exercise(
        "How many entries has the vocabulary?",
        49152,
        lambda: tokenizer().vocab_size,
    ),
    Exercise(
        "A model is asked how many r are in 'strawberry'. How many pieces does it see?",
        3,
        lambda: len(tokenizer().encode("strawberry")),
    ),
    Exercise(
        "Is ' capital' (with its space) the same token as 'capital'?",
        False,
        lambda: tokenizer().encode(" capital") == tokenizer().encode("capital"),
    ),
)
