"""Real servers on this machine's processor: recorded, routed, and asked what they do not take.

`transformers serve` is found on the path, or named by HARNESS_TEST_TRANSFORMERS; llama.cpp's `llama-server` by
HARNESS_TEST_LLAMA_SERVER, with a chat model's file in HARNESS_TEST_GGUF. What is absent is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pools.data.recording import load_recording
from pools.models.generator import LiveGenerator
from pools.pool import Pool, load_pool
from pools.types import Context, GenerationSettings, UpstreamError

ROOT = Path(__file__).parents[3]
SPECIALISTS = ("calculator", "reader")
SECONDS_TO_START = 120.0


@contextmanager
def running(*command: object) -> Iterator[str]:
    """A server's address, once it is healthy; `PORT` in the command stands for a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [str(word).replace("PORT", str(port)) for word in command]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + SECONDS_TO_START
            while not _healthy(address):
                assert process.poll() is None and time.monotonic() < deadline, f"{words[0]} does not start"
                time.sleep(0.2)
            yield address
        finally:
            process.kill()


def _healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.HTTPError:
        return False


def pool_file(folder: Path, models: list[dict[str, Any]]) -> Path:
    head = {"name": "served", "cost_unit": "T param-tokens", "rates": "parameters / 10^12"}
    file = folder / "served.yaml"
    file.write_text(json.dumps({**head, "models": models}))  # which is YAML, too
    return file


def refused(file: Path, context: str = "What is 3 + 4?", until: tuple[str, ...] = (), **arguments: Any) -> str:
    """The error of the pool's first model with other arguments."""
    pool = load_pool(str(file))
    first = replace(pool.models[0], arguments={**pool.models[0].arguments, "max_retries": 1, **arguments})
    if "lm_eval" in arguments:
        first = replace(first, lm_eval=first.arguments.pop("lm_eval"), chat_template=not first.chat_template)
    asked = Pool(pool.name, (first,), pool.cost_unit, pool.rates)
    with pytest.raises(UpstreamError) as error:
        LiveGenerator(asked).generate(0, [(Context(context), GenerationSettings(until, 8))])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def transformers_serve() -> Iterator[str]:
    program = os.environ.get("HARNESS_TEST_TRANSFORMERS") or shutil.which("transformers")
    if program is None:
        pytest.skip("no `transformers` on the path, and none named by HARNESS_TEST_TRANSFORMERS")
    with running(program, "serve", "--host", "127.0.0.1", "--port", "PORT", "--dtype", "float32") as address:
        yield address


@pytest.fixture(scope="module")
def served_specialists(transformers_serve: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of two specialists behind the server, which are shown what the pool that ships shows them."""
    shipped = {model.name: model for model in load_pool("lightweight").models}
    models = [
        {
            "name": name,
            "lm_eval": "local-completions",
            "arguments": {
                "model": str(ROOT / "results" / "specialists" / name),
                "base_url": f"{transformers_serve}/v1/completions",
                "tokenizer_backend": "none",
            },
            "template": shipped[name].template,
            "base_rate": shipped[name].base_rate,
        }
        for name in SPECIALISTS
    ]
    return pool_file(tmp_path_factory.mktemp("transformers"), models)


def test_transformers_serve_answers_as_the_recording_that_ships(
    served_specialists: Path, tmp_path: Path, harness: Callable[..., int], capsys: Any
) -> None:
    out, store = tmp_path / "recording", tmp_path / "s.sqlite"
    selection = ("--pool", served_specialists, "--suite", "offline", "--task", "sums", "--limit", 6)
    assert harness("record", *selection, "--max-hops", 2, "--out", out, "--store", store) == 0
    tree = load_recording(out).tree
    assert tree.latency and tree.timing == ("server", "server")
    shipped = load_recording(ROOT / "results" / "recordings" / "lightweight-offline").tree
    of = {(item.task, item.doc_id): index for index, item in enumerate(shipped.items)}
    actions = [shipped.models.index(name) for name in SPECIALISTS]
    same = {"response": 0, "tokens": 0, "score": 0}
    for index, item in enumerate(tree.items):
        for node in range(1, tree.nodes):
            there = of[item.task, item.doc_id], shipped.node([actions[a] for a in tree.pipeline(node)])
            now, then = tree.generation(index, node), shipped.generation(*there)
            same["response"] += now.response == then.response
            same["tokens"] += now.tokens_in == then.tokens_in
            same["score"] += tree.score[index, node] == shipped.score[there]
    total = len(tree.items) * (tree.nodes - 1)
    assert all(number >= 0.9 * total for number in same.values()), (same, total)
    capsys.readouterr()
    assert harness("run", "--recording", out, "--router", "random", "--split", "all", "--out", tmp_path / "run") == 0
    assert "p95" in capsys.readouterr().out
    assert "latency" in json.loads((tmp_path / "run" / "summary.json").read_text())["routers"]["random"]


def test_what_transformers_serve_does_not_take_is_said(served_specialists: Path) -> None:
    tokens = refused(
        served_specialists,
        tokenizer=str(ROOT / "results" / "specialists" / "calculator"),
        tokenizer_backend="huggingface",
    )
    assert "status 400: prompt must be a string.; set `tokenized_requests: false`" in tokens
    url = load_pool(str(served_specialists)).models[0].arguments["base_url"]
    chat = refused(served_specialists, lm_eval="local-chat-completions", base_url=url.replace("/v1/", "/v1/chat/"))
    assert "status 500" in chat and "without one use `lm_eval: local-completions`" in chat
    assert "status 404: Not Found; check `base_url`, which ends in /v1/completions" in refused(
        served_specialists, base_url=url.removesuffix("/v1/completions")
    )


@pytest.fixture(scope="module")
def served_chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pool of one chat model behind llama.cpp's server, asked with few words and with many."""
    program = os.environ.get("HARNESS_TEST_LLAMA_SERVER") or shutil.which("llama-server")
    weights = os.environ.get("HARNESS_TEST_GGUF")
    if program is None or weights is None:
        pytest.skip("no llama-server on the path or in HARNESS_TEST_LLAMA_SERVER, or no HARNESS_TEST_GGUF")
    given = (
        "-m",
        weights,
        "--host",
        "127.0.0.1",
        "--port",
        "PORT",
        "-c",
        2048,
        "-np",
        2,
        "-t",
        1,
        "--api-key",
        "right",
    )
    with running(program, *given) as address:
        arguments = {"model": "any", "base_url": f"{address}/v1/chat/completions", "num_concurrent": 2}
        arguments["header"] = {"Authorization": "Bearer right"}
        shared = {"lm_eval": "local-chat-completions", "arguments": arguments, "chat_template": True, "base_rate": 0.1}
        models = [
            {"name": "short", **shared, "template": "{{ query }}\nAnswer with one word."},
            {"name": "long", **shared, "template": "{{ query }}\nThink step by step."},
        ]
        yield pool_file(tmp_path_factory.mktemp("llama"), models)


def test_llama_server_is_recorded_and_routed(
    served_chat: Path, tiny_tasks: Path, tmp_path: Path, harness: Callable[..., int], capsys: Any
) -> None:
    out, store = tmp_path / "recording", tmp_path / "s.sqlite"
    selection = ("--pool", served_chat, "--suite", tiny_tasks / "suite.yaml", "--limit", 6)
    assert harness("record", *selection, "--max-hops", 1, "--out", out, "--store", store) == 0
    tree = load_recording(out).tree
    made = [tree.generation(index, node) for index in range(len(tree.items)) for node in range(1, tree.nodes)]
    assert tree.latency and len({one.response for one in made}) > 6
    assert all(0 < one.tokens_out <= 12 and one.tokens_in > 10 and one.seconds > 0 for one in made)
    assert "short: 6/6 responses" in capsys.readouterr().out
    assert harness("run", "--recording", out, "--router", "random", "--split", "all", "--out", tmp_path / "run") == 0
    assert "p95" in capsys.readouterr().out


def test_what_llama_server_does_not_take_is_said(served_chat: Path) -> None:
    assert "status 401" in (said := refused(served_chat, header={"Authorization": "Bearer of bad news"}))
    assert "; check the key: the variable OPENAI_API_KEY, or `header`" in said and "bad news" not in said
    assert "; start the server with a longer context" in refused(served_chat, context="word " * 3000)
