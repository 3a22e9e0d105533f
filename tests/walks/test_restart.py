"""The model server is killed in mid-stream: the client hears of it, the next one is answered."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import httpx2
import psutil

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def test_kill_9_of_the_model_in_mid_stream(serve: Callable[..., Any]) -> None:
    with serve() as house:
        first = house.model().pid
        body = {**ASK, "stream": True, "max_tokens": 1500, "ignore_eos": True}
        seen: list[str] = []
        with httpx2.stream("POST", f"{house.url}/v1/chat/completions", json=body, timeout=60) as it:
            assert it.status_code == 200
            for line in it.iter_lines():
                if line.startswith("data: "):
                    seen.append(line.removeprefix("data: "))
                if len(seen) == 5:
                    os.kill(first, signal.SIGKILL)
        assert len(seen) < 1500
        error = json.loads(seen[-1])["error"]
        assert (error["type"], error["code"]) == ("upstream_error", "upstream_reset")
        assert not any('"finish_reason":"' in event for event in seen)

        statuses = set()
        end = time.monotonic() + 120
        while time.monotonic() < end:
            reply = httpx2.post(f"{house.url}/v1/chat/completions", json=ASK, timeout=60)
            statuses.add(reply.status_code)
            if reply.status_code == 200:
                break
            assert reply.status_code == 503
            assert int(reply.headers["retry-after"]) >= 1
            time.sleep(0.05)
        assert 200 in statuses, house.log
        assert house.model().pid != first


def test_the_model_leaves_when_its_parent_is_killed(serve: Callable[..., Any]) -> None:
    with serve() as house:
        model = house.model()
        house.process.kill()
        house.process.wait()
        psutil.wait_procs([model], timeout=60)
        assert not model.is_running()


def test_sigterm_ends_both_and_says_nothing_bad(serve: Callable[..., Any]) -> None:
    with serve() as house:
        model = house.model()
        assert house.stop() == 0
        assert not model.is_running()
        assert "Traceback" not in house.log


def test_ctrl_c_lets_a_stream_finish(serve: Callable[..., Any]) -> None:
    with serve() as house:
        body = {**ASK, "stream": True, "max_tokens": 100, "ignore_eos": True}
        with httpx2.stream("POST", f"{house.url}/v1/chat/completions", json=body, timeout=60) as it:
            lines = it.iter_lines()
            next(lines)
            house.process.send_signal(signal.SIGINT)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert house.process.wait(60) == 0


def test_the_last_lines_say_where_and_what_to_try(serve: Callable[..., Any]) -> None:
    with serve() as house:
        end = time.monotonic() + 60
        while "try: curl" not in house.log and time.monotonic() < end:
            time.sleep(0.05)
        *_, where, releases, attempt = house.lines
        assert house.url in where
        assert "tiny → tiny-1" in releases
        command = attempt.removeprefix("try: ")
        shell = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
        assert shell.stdout.endswith("data: [DONE]\n\n")
