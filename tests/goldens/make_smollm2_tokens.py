"""Make smollm2_tokens.json: texts and their ids by llama.cpp.

python make_smollm2_tokens.py SmolLM2-135M-Instruct.Q4_1.gguf      (needs llama-cpp-python)
"""

import json
import sys
from pathlib import Path

from llama_cpp import Llama

TEXTS = [
    "Hello world! 123",
    "  two spaces, a\ttab\nand\r\n\r\n\n   line ends  ",
    "Café déjà vu, naïve façade, Žižek, straße",
    "0 1 22 333 4444 55555 1,000,000.00 3.14159e-10 ½ Ⅷ ١٢٣ 零一",
    "I'll say WE'VE done it, they'd've; don't 'quote' me",
    "日本語のテキストと中文文本，以及한국어 문장.",
    "Привет, как дела? Γειά σου Κόσμε! שלום עולם مرحبا بالعالم",
    "🙂👍🏽 👨‍👩‍👧‍👦 flags 🇫🇷 and z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢ combining",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    'def f(x: int) -> list[str]:\n    return [f"{x:>08,}"] * 2  # ¬_¬\n',
    "https://example.org/a/b?c=d&e=%20f#g user@example.org C:\\temp\\new",
    "\u00a0non-breaking\u2003em\u3000wide\u200bzero\ufeffmark",
    "<|endoftext|><repo_name>glass<file_sep>gate",
    '{"a": [1, 2.5, null, true], "b": "\\u00e9"}',
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa----------------================",
]


def main() -> None:
    model = Llama(sys.argv[1], vocab_only=True, verbose=False)
    ids = [model.tokenize(text.encode(), add_bos=False, special=True) for text in TEXTS]
    path = Path(__file__).parent / "smollm2_tokens.json"
    path.write_text("[\n" + ",\n".join(map(json.dumps, zip(TEXTS, ids, strict=True))) + "\n]\n")


main()
