"""What a key looks like: `sk-gg-<id>-<secret><crc>`.

The id finds the row; the secret has 256 bits, so its plain SHA-256 may be stored; the checksum
tells a mistyped key from an unknown one before anything is looked up.
"""

import hashlib
import hmac
import secrets
import zlib

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX = "sk-gg-"
ID_LENGTH = 12  # 71 bits: two of a billion keys meet once in a thousand tries
SECRET_LENGTH = 43  # 62⁴³ > 2²⁵⁶
CRC_LENGTH = 6  # 62⁶ > 2³²
MAX_LENGTH = 160  # the id may also be a name from the config file


def mint(key_id: str | None = None) -> tuple[str, str]:
    """A fresh key, as (id, whole text); with `key_id`, a new secret for that key."""
    key_id = key_id or "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
    body = f"{PREFIX}{key_id}-{_base62(secrets.randbits(256), SECRET_LENGTH)}"
    return key_id, body + _checksum(body)


def parse(text: str) -> str | None:
    """The id in a well-formed key; None when the text is no key of ours or has a typo."""
    body, crc = text[:-CRC_LENGTH], text[-CRC_LENGTH:]
    if (
        len(text) > MAX_LENGTH
        or not text.isascii()
        or not body.startswith(PREFIX)
        or crc != _checksum(body)
    ):
        return None
    return body[len(PREFIX) :].rpartition("-")[0] or None


def digest(text: str) -> str:
    """What is stored: SHA-256 of the whole key, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_same(digest_a: str, digest_b: str) -> bool:
    """In a time that does not depend on where they differ."""
    return hmac.compare_digest(digest_a, digest_b)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CRC_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
