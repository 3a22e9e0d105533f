"""An upstream that sends what no upstream should; the model's name is the number of the evil.

python tests/chaos/evil.py PORT
"""

import asyncio
import contextlib
import json
import sys

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(content: str) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return chunk(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())


END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
EVILS = {  # what is sent, and how many times its last part is
    "an event without end": ([CHUNKED, chunk(b"data: "), chunk(b"a" * 65_536)], 1000),
    "a line without end": ([CHUNKED, chunk(b"a" * 65_536)], 1000),
    "comments without end": ([CHUNKED, chunk(b": " + b"no" * 32_000 + b"\n\n")], 1000),
    "headers without end": ([b"HTTP/1.1 200 OK\r\n", b"x-more: " + b"a" * 4096 + b"\r\n"], 1000),
    "no JSON": ([CHUNKED, event("good "), chunk(b'data: {"choices": [\n\n') + END], 1),
    "other JSON": ([CHUNKED, chunk(b'data: {"choices": 7}\n\n') + END], 1),
    "no UTF-8": ([CHUNKED, event("good "), chunk(b'data: {"choices": "\xff\xfe"}\n\n') + END], 1),
    "NUL": ([CHUNKED, chunk(b"data: \x00\n\n") + END], 1),
    "deep JSON": ([CHUNKED, chunk(b"data: " + b"[" * 50_000 + b"\n\n") + END], 1),
    "a size that is none": ([CHUNKED, b"zz\r\nno\r\n"], 1),
    "a negative size": ([CHUNKED, b"-5\r\nno\r\n"], 1),
    "no HTTP": ([b"\x16\x03\x01 hello\r\n\r\n"], 1),
    "nothing": ([b""], 1),
    "usage of nonsense": (
        [
            CHUNKED,
            event("x"),
            chunk(b'data: {"choices": [], "usage": {"prompt_tokens": -1e99}}\n\n') + END,
        ],
        1,
    ),
}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if head.startswith(b"get "):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        else:
            length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
            asked = json.loads(await reader.readexactly(length))
            parts, times = list(EVILS.values())[int(asked["model"])]
            for part in parts[:-1] + parts[-1:] * times:
                writer.write(part)
                await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
