"""Make minilm.npz: sentences and their vectors by sentence-transformers, as float16.

python make_minilm.py FOLDER      (the pulled minilm's folder; needs sentence-transformers)
"""

import json
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer, models

SENTENCES = [
    "",
    " ",
    "a",
    "Hello, world!",
    "The capital of France is Paris.",
    "What is the capital of France?",
    "A decorator is a function that returns another function.",
    "Numbers: 1, 22, 333, 4444, 3.14159, 1e-10, 50%.",
    "UPPER CASE and lower case and MiXeD",
    "snake_case camelCase kebab-case __dunder__",
    "Café déjà vu, naïve façade, Žižek, straße, Ångström",
    "日本語の文章をベクトルにする。",
    "把一句中文变成一个向量。",
    "한국어 문장을 벡터로 바꾼다.",
    "Предложение на русском языке.",
    "Μια πρόταση στα ελληνικά.",
    "משפט בעברית.",
    "جملة باللغة العربية.",
    "हिन्दी में एक वाक्य।",
    "ประโยคภาษาไทย",
    "🙂👍🏽🎉 emoji only 🇫🇷",
    "tabs\tand\nnewlines\r\nand   spaces",
    "zero\u200bwidth\ufeffmarks\u00a0and\u3000spaces",
    "control \x00\x07 characters",
    "[CLS] written [SEP] out [MASK] [PAD]",
    "https://example.org/a/b?c=d&e=%20f#g",
    "def f(x: int) -> list[str]: return [str(x)] * 2",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 300,
    "word " * 254,
    "The model reads no more than 256 word pieces of a text. " * 40,
    "Длинный текст обрезается так же. " * 60,
]


def main() -> None:
    folder = sys.argv[1]
    transformer = models.Transformer(folder, max_seq_length=256)
    pooling = models.Pooling(transformer.get_word_embedding_dimension(), "mean")
    encoder = SentenceTransformer(modules=[transformer, pooling, models.Normalize()], device="cpu")
    vectors = encoder.encode(SENTENCES, batch_size=1)
    tokenizer = encoder.tokenizer
    tokenizer.backend_tokenizer.no_padding()
    ids = [tokenizer(text, truncation=True, max_length=256)["input_ids"] for text in SENTENCES]
    np.savez_compressed(
        Path(__file__).parent / "minilm.npz",
        sentences=np.frombuffer(json.dumps(SENTENCES).encode(), np.uint8),
        vectors=vectors.astype(np.float16),
        num_tokens=np.array([len(sequence) for sequence in ids], np.int16),
    )


main()
