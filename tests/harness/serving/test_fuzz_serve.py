"""The chat API: any body, header and path gets an answer of JSON, never a failure of the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import fuzz, junk, mutated, texts
from served import Model, routed

testclient = pytest.importorskip("fastapi.testclient")
BODY = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ],
    "max_tokens": 8,
    "stop": ["\n", "x"],
    "stream": False,
    "stream_options": {"include_usage": True},
    "n": 1,
    "temperature": 0.5,
}  # fmt: skip


KEY = {"authorization": "Bearer käy à".encode(), "content-type": "application/json"}
MAX_STOP = 200  # characters


@pytest.fixture(scope="module")
def client() -> Iterator[Callable[..., Any]]:
    from harness.serving.app import create_app
    from harness.serving.batcher import Dispatcher

    dispatcher = Dispatcher(routed(Model(lambda query: query)))
    app = create_app(dispatcher, "m", key="käy à", max_body_bytes=20_000, max_tokens=64)
    with testclient.TestClient(app, raise_server_exceptions=True) as made:
        yield made
    dispatcher.close()


def answered(client: Any, body: bytes) -> Any:
    """The reply to a body: an answer, or an error of the client's that says what is wrong."""
    response = client.post("/v1/chat/completions", content=body, headers=KEY)
    assert response.status_code in (200, 400, 404, 413, 422), response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]
        return None
    return response


@fuzz("chat API: bodies", 400)
@given(mutated(BODY, surrogates=True) | junk(surrogates=True))
def test_a_body(client: Any, body: Any) -> None:
    response = answered(client, json.dumps(body).encode())
    if response is not None and "data:" not in response.text[:5]:
        assert response.json()["choices"][0]["message"]["content"].encode()


@fuzz("chat API: texts", 200)
@given(texts(surrogates=True), texts(surrogates=True))
def test_a_text_is_answered_to_the_byte_or_refused(client: Any, text: str, stop: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "stop": stop}
    response = answered(client, json.dumps(body).encode())
    surrogates = any("\ud800" <= character <= "\udfff" for character in text + stop)
    if surrogates or not text.strip() or len(stop) > MAX_STOP:
        assert response is None
    else:
        assert response.json()["choices"][0]["message"]["content"] == text
        streamed = answered(client, json.dumps({**body, "stream": True}).encode())
        chunks = [json.loads(part[6:]) for part in streamed.text.split("\n\n")[:-2]]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text


@fuzz("chat API: bytes", 200)
@given(
    st.binary(max_size=80) | st.sampled_from([b"[" * 9000, b'{"n":' + b"9" * 9000, b"x" * 30_000, b'{"model": NaN}'])
)
def test_bytes(client: Any, body: bytes) -> None:
    assert answered(client, body) is None


@fuzz("chat API: paths and keys", 150)
@given(texts(), st.binary(max_size=20))
def test_paths_and_keys(client: Any, path: str, key: bytes) -> None:
    from urllib.parse import quote

    assert client.get(f"/v1/models/{quote(path)}", headers=KEY).status_code in (200, 404, 405)
    key = bytes(byte for byte in key if byte >= 0x20 and byte != 0x7F)
    assert client.get("/v1/models", headers={"authorization": b"Bearer " + key}).status_code == 401
