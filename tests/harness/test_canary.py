"""No secret reaches any output: one in each place where a user may put one, every command, every byte searched.

docs/results/bad-input.md has the table of places and outputs.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import yaml

import harness as package
from chat_server import answer_to, chat_server
from pools.errors import UserError

pytest.importorskip("fastapi")
ROOT = Path(package.__file__).parent.parent


def canary(place: str) -> str:
    return "sk-" + hashlib.sha256(place.encode()).hexdigest()[:22]


# What is sent to the server, by the name of the model that sends it, ...
SENT = {
    "header": ("header: Authorization", "header: another one"),
    "url": ("base_url: password", "base_url: query", "header: api-key"),
    "environment": ("environment: OPENAI_API_KEY", "base_url: query of completions"),
}
# ... and what is not, or goes elsewhere.
KEPT = (
    "argument: api_key",
    "argument: auth_token",
    "argument: a password in a list in a mapping",
    "argument: a URL in a list",
    "environment: HF_TOKEN",
    "environment: ANTHROPIC_API_KEY",
    "environment: HARNESS_API_KEY",
    "environment: WANDB_API_KEY",
    "--api-key-file",
    "serve: a client's wrong key",
    "--ray-address",
    "a pool file that is not YAML",
    "arguments that are a text",
    "arguments that JSON cannot hold",
)
PLACES = (*(place for places in SENT.values() for place in places), *KEPT)
PASSWORD = canary("base_url: password")
BASIC = base64.b64encode(f"somebody:{PASSWORD}".encode()).decode()
ENVIRONMENT = {
    name: canary(f"environment: {name}")
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "ANTHROPIC_API_KEY", "HARNESS_API_KEY", "WANDB_API_KEY")
}


def leaks(name: str, content: bytes) -> list[tuple[str, str]]:
    """The places whose secret is in the content, as it is, or as it stands in a header of Basic authentication."""
    found = [place for place in PLACES if canary(place).encode() in content]
    found += ["base_url: password, as base64"] if BASIC.encode() in content else []
    return [(name, place) for place in found]


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a folder as its bytes, and as what they say where they are compressed or in pages."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        yield name, path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield name, repr((table.to_pylist(), table.schema.metadata)).encode()
        elif path.suffix == ".sqlite":
            yield name, "\n".join(sqlite3.connect(path).iterdump()).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A server of chats and completions; with a `status` other than 200, or without `texts`, it echoes the request."""

    def reply(handler: Any, *_: object) -> bool:
        got = f"{handler.path} {dict(handler.headers)}"
        handler.server.got.append(got)
        answers = handler.server.status == 200 and handler.server.texts
        answer = answer_to("question 0", as_text="chat" not in handler.path)
        handler.reply(handler.server.status, answer if answers else {"error": {"message": f"no such key: {got}"}})
        return True

    with chat_server(reply) as running:
        yield running


@pytest.fixture
def good(server: Any) -> Any:
    server.status, server.texts, server.got = 200, True, []
    return server


def models(server: Any, concurrent: int = 16, secret: Callable[[str], str] = canary) -> dict[str, dict[str, Any]]:
    """The models of the pool file, by name."""
    at = f"127.0.0.1:{server.server_port}/v1"
    common = {"model": "any", "num_concurrent": concurrent, "max_retries": 1, "timeout": 20}
    chat = {"base_rate": 0.01, "lm_eval": "local-chat-completions", "chat_template": True}
    with_header = {
        "base_url": f"http://{at}/chat/completions",
        "header": {
            "Authorization": f"Bearer {secret('header: Authorization')}",
            "X-Key": secret("header: another one"),
        },
        "api_key": secret("argument: api_key"),
        "auth_token": secret("argument: auth_token"),
        "nested": {"inner": [{"password": secret("argument: a password in a list in a mapping")}]},
        "mirrors": [f"https://somebody:{secret('argument: a URL in a list')}@example.com/"],
    }
    with_url = {
        "base_url": f"http://somebody:{secret('base_url: password')}@{at}/chat/completions?"
        f"api-version=1&key={secret('base_url: query')}",
        "header": {"api-key": secret("header: api-key")},
    }
    completions = {"lm_eval": "local-completions", "chat_template": False}
    query = f"?access_token={secret('base_url: query of completions')}"
    of_environment = {"base_url": f"http://{at}/completions{query}", "tokenizer_backend": None}
    return {
        "header": {**chat, "arguments": common | with_header},
        "url": {**chat, "arguments": common | with_url},
        "environment": {**chat, **completions, "arguments": common | of_environment},
    }


def write_pool(folder: Path, declared: dict[str, dict[str, Any]], name: str = "keys") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    listed = [{"name": name, **model} for name, model in declared.items()]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "cost_unit": "u", "rates": "made up", "models": listed}))
    return path


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that everything is written to, with a secret in each variable of the environment."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(folder))
    yield folder
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # it reads its variables once


@pytest.fixture
def suite(tiny_tasks: Path) -> tuple[Any, ...]:
    return ("--suite", tiny_tasks / "suite.yaml", "--max-hops", 1)


@pytest.fixture
def searched(workplace: Path, capfd: Any, caplog: Any) -> Callable[[], tuple[str, int]]:
    """Fail where a secret is in an output, a log record or a file; what was on standard error, and the files read."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "matplotlib")  # a line for each font
    caplog.set_level(logging.DEBUG, "asyncio")

    def search() -> tuple[str, int]:
        gc.collect(1)  # asyncio logs an error that nobody waited for when it forgets it
        out, err = capfd.readouterr()
        files = list(contents(workplace))
        everything = [("stdout", out.encode()), ("stderr", err.encode()), ("logs", caplog.text.encode()), *files]
        assert [found for name, content in everything for found in leaks(name, content)] == []
        return err, len(files)

    return search


def arrived(server: Any, places: Iterable[str]) -> None:
    """The secrets were sent, as the user meant: the server has them."""
    got = "\n".join(server.got)
    for place in places:
        assert (BASIC if place == "base_url: password" else canary(place)) in got, place


def test_every_command_and_file_that_it_writes(
    good: Any, suite: Any, searched: Any, harness: Callable[..., int], tmp_path: Path
) -> None:
    pool = write_pool(tmp_path / "secrets", models(good))
    assert {place for _, place in leaks("pool", pool.read_bytes())} == {p for p in PLACES if "argument: " in p} | {
        p for places in SENT.values() for p in places if "environment" not in p
    }
    recording, baseline = ("--recording", "recording"), ("--baseline", "baseline.json")
    of_recording = (*recording, "--pool", pool)
    commands: list[tuple[Any, ...]] = [
        ("list", "models", "--pool", pool),
        ("record", "--pool", pool, *suite, "--out", "recording"),
        ("verify", *of_recording, *suite[:2], "--sample", 9, "--out", "verified.json"),
        ("run", *of_recording, "--router", "random", "--out", "one"),
        ("run", "--pool", pool, *suite, "--live", "--router", "single:url", "--baselines", "yes", "--out", "two",
         "--track"),
        ("train", "--pool", pool, *suite, "--live", "--total-timesteps", 64, "--out", "live.safetensors"),
        ("compare", "one", "two", "--out", "compared.md"),
        ("report", "one", "two"),
        ("check", *baseline, *recording, "--router", "random", "--update"),
        ("check", *baseline, "--junit", "junit.xml"),
    ]  # fmt: skip
    for command in commands:
        assert harness(*command) == 0, command
    arrived(good, (place for places in SENT.values() for place in places))
    assert searched()[1] > 40
    manifest = json.loads(Path("recording/manifest.json").read_text())
    with_header, with_url, _ = (model["arguments"] for model in manifest["pool"]["models"])
    assert with_header["header"] == with_header["api_key"] == "***" and with_header["model"] == "any"
    assert with_url["base_url"].endswith("/v1/chat/completions?api-version=1&key=***")
    assert with_url["base_url"].startswith("http://***@127.0.0.1:")


def test_a_new_key_asks_the_server_for_nothing_again(
    good: Any,
    suite: Any,
    searched: Any,
    harness: Callable[..., int],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    first = write_pool(tmp_path / "one", models(good))
    assert harness("record", "--pool", first, *suite, "--out", "recording") == 0
    asked = len(good.got)
    assert asked == 3 * 16
    monkeypatch.setenv("OPENAI_API_KEY", canary("a new one"))
    new = write_pool(tmp_path / "two", models(good, secret=lambda place: canary(f"new {place}")))
    assert harness("record", "--pool", new, *suite, "--out", "recording") == 0
    assert len(good.got) == asked
    for pool in (first, new):
        run = ("run", "--recording", "recording", "--pool", pool, "--router", "random", "--out", "run", "--force")
        assert harness(*run) == 0
    searched()


@pytest.mark.parametrize("concurrent", [1, 16])
def test_servers_that_fail(
    good: Any, suite: Any, searched: Any, harness: Callable[..., int], tmp_path: Path, concurrent: int
) -> None:
    """And echo the key, with a status of failure or in a reply without a text."""
    for name, model in models(good, concurrent).items():
        pool = write_pool(tmp_path / "secrets", {name: model})
        for status in (200, 401, 404, 500):
            good.status, good.texts, good.got = status, False, []
            assert harness("record", "--pool", pool, *suite, "--limit", 3, "--out", "recording") == 2
            arrived(good, SENT[name])
            err, _ = searched()
            assert err.count("\n") == 1 and "did not answer" in err, err


CRASHES = """
import os
from routers import register

@register("crashes")
class Crashes:
    "Fails."
    def __init__(self, request): pass
    def act(self, states):
        try:
            raise ValueError(os.environ["HF_TOKEN"])
        except ValueError as error:
            raise RuntimeError("Authorization: Bearer {}") from error
"""


def test_a_traceback(good: Any, suite: Any, searched: Any, harness: Callable[..., int], tmp_path: Path) -> None:
    """Of a router of the user's own: its chain of errors is shown, without what they say of keys."""
    pool, router = write_pool(tmp_path / "secrets", models(good)), tmp_path / "crashes.py"
    router.write_text(CRASHES.replace("{}", canary("argument: api_key")))
    assert harness("run", "--pool", pool, *suite, "--live", "--router", router) == 2
    err, _ = searched()
    assert "ValueError: ***" in err and "RuntimeError: Authorization: Bearer ***" in err


def test_the_model_of_lm_eval(good: Any, tiny_model_dir: Path, tiny_tasks: Path, searched: Any, tmp_path: Path) -> None:
    """Where log records and tracebacks are not those of our command line."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    import harness.serving.lm  # noqa: F401 - registers the model

    pool, one_at_a_time = (write_pool(tmp_path / "secrets", models(good, n), f"pool{n}") for n in (16, 1))
    counted = models(good, 1)
    counted["environment"]["arguments"] |= {"tokenizer": str(tiny_model_dir), "tokenizer_backend": "huggingface"}
    choices = write_pool(tmp_path / "secrets", counted, "choices")
    manager = TaskManager(include_path=str(tiny_tasks), include_defaults=False)
    for pool_file, name, task, status in (
        *((pool, name, "tiny_text", status) for name in SENT for status in (200, 404)),
        (one_at_a_time, "url", "tiny_text", 404),
        (choices, "environment", "tiny_choice", 404),
    ):
        good.status, good.texts, good.got = status, status == 200, []
        arguments = f"pool={pool_file},router=single:{name},max_hops=1,store=routed-{status}.sqlite"
        try:
            found = simple_evaluate("routed", arguments, [task], task_manager=manager, limit=2, bootstrap_iters=0)
            Path("results.json").write_text(json.dumps(found, default=repr))
            assert status == 200
        except Exception as error:
            assert status == 404 and isinstance(error, UserError), error
            traceback.print_exc()
        arrived(good, SENT[name])
    assert searched()[0].count("did not answer") == 5


MISTAKES = {
    "a pool file that is not YAML": 'name: x\nmodels:\n  - name: m\n    arguments: {api_key: "{}" oh\n',
    "arguments that are a text": "name: x\ncost_unit: u\nrates: r\nmodels:\n"
    "  - {name: m, lm_eval: hf, base_rate: 1, arguments: 'model=a,api_key={}'}\n",
    "arguments that JSON cannot hold": "name: x\ncost_unit: u\nrates: r\nmodels:\n"
    "  - {name: m, lm_eval: hf, base_rate: 1, arguments: {api_key: {}, since: 2026-11-25}}\n",
}


def test_mistakes_in_a_pool_file_and_on_the_command_line(
    searched: Any, harness: Callable[..., int], tmp_path: Path
) -> None:
    for number, (place, text) in enumerate(MISTAKES.items()):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text.replace("{}", canary(place)))
        assert harness("record", "--pool", path) == 2
        err, _ = searched()
        assert str(path) in err and err.count("\n") == 1
    address = f"ray://somebody:{canary('--ray-address')}@127.0.0.1:1"
    assert harness("record", "--engine", "ray", "--ray-address", address, "--out", "r") == 2
    err, _ = searched()
    assert "no Ray cluster at ray://***@127.0.0.1:1" in err


def test_what_serve_answers_and_says(good: Any, searched: Any, tmp_path: Path) -> None:
    pool, key = write_pool(tmp_path / "secrets", models(good)), canary("--api-key-file")
    (tmp_path / "key").write_text(key + "\n")
    shown: list[str] = []
    command = [sys.executable, "-u", "-m", "harness", "serve", "--port", "0", "--api-key-file", str(tmp_path / "key")]
    command += ["--pool", str(pool), "--router", "pipeline:header>url>environment", "--store", "serve.sqlite"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, "--max-hops", "3"], stdout=-1, stderr=-1, text=True, env=environment)
    try:
        assert process.stdout is not None
        for line in process.stdout:  # what is loaded is told of before
            shown.append(line)
            if found := re.search(r"at (http://\S+)/v1", line):
                break
        assert found, process.stderr and process.stderr.read()
        body = {"model": "pipeline:header>url>environment", "max_tokens": 9}

        def ask(authorization: str | None, query: str) -> int:
            headers = {} if authorization is None else {"Authorization": authorization}
            asked = {**body, "messages": [{"role": "user", "content": query}]}
            got = httpx.post(f"{found[1]}/v1/chat/completions", json=asked, headers=headers, timeout=60)
            shown.append(f"{got.text} {got.headers}")
            return got.status_code

        for wrong in (None, f"Bearer {canary('serve: a client' + chr(39) + 's wrong key')}", f"Basic {key}", key):
            assert ask(wrong, "hello") == 401
        for scheme in ("Bearer", "bearer", "BEARER "):
            assert ask(f"{scheme} {key}", "hello") == 200
        for status in (401, 404, 500):
            good.status, good.texts = status, False
            assert ask(f"Bearer {key}", f"fail with {status}") in (422, 502)
        shown.append(httpx.get(f"{found[1]}/metrics", headers={"Authorization": f"bearer {key}"}).text)
        process.send_signal(signal.SIGTERM)
        shown += process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
    arrived(good, (place for places in SENT.values() for place in places))
    assert leaks("serve", "\n".join(shown).encode()) == []
    searched()
