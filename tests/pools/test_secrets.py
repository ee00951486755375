"""What is a secret, by names of arguments and in URLs: masked, no part of a model's identity, wiped from texts."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from pools import secrets
from pools.errors import UserError, shown
from pools.pool import CandidateModel, Pool
from pools.secrets import (
    clean,
    clean_command,
    clean_logs,
    clean_output,
    harmless,
    identity,
    masked,
    remember,
    secret_name,
)

SECRET = """
header headers extra_headers api_key apiKey APIKey apikey X-Api-Key api_key_2 openai_key keys token hf_token auth_token
access_token bearer_token access_tokens id_token apitoken authToken accesstoken hftoken accesskey privatekey user_pwd
password passwd client_secret Authorization credentials cookie
OPENAI_API_KEY HF_TOKEN TEXTSYNTH_API_SECRET_KEY AWS_ACCESS_KEY_ID HARNESS_API_KEY
"""
ORDINARY = """
model pretrained base_url tokenizer tokenizer_backend tokenized_requests use_fast_tokenizer max_tokens max_gen_toks
max_num_batched_tokens skip_special_tokens special_tokens add_bos_token think_end_token eos_token eos_token_id
pad_token_id custom_prefix_token_id num_key_value_heads key_mapping keyword monkey author eos_string
TOKENIZERS_PARALLELISM
"""
KEY = "sk-0123456789abcdef"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())


def test_names() -> None:
    assert [name for name in SECRET.split() if not secret_name(name)] == []
    assert [name for name in ORDINARY.split() if secret_name(name)] == []


GIVEN = {
    "model": "any",
    "api_key": KEY,
    "token": True,
    "eos_token": "</s>",
    "header": {"Authorization": f"Bearer {KEY}"},
    "deep": [{"a": {"password": 12345678, "b": [1, None]}}],
    "base_url": f"https://me:{KEY}@host:1/v1?api-version=1&api_key={KEY}#top",
    "extra": f"revision=main,hf_token={KEY}",
}


def test_data_without_secrets() -> None:
    hidden = {
        "api_key": "***",
        "header": "***",
        "deep": [{"a": {"password": "***", "b": [1, None]}}],
        "base_url": "https://***@host:1/v1?api-version=1&api_key=***#top",
        "extra": "revision=main,hf_token=***",
    }
    assert masked(GIVEN) == GIVEN | hidden
    kept = {"model": "any", "token": True, "eos_token": "</s>", "deep": [{"a": {"b": [1, None]}}]}
    kept |= {"base_url": "https://host:1/v1?api-version=1#top", "extra": "revision=main"}
    assert identity(GIVEN) == kept == identity(masked(GIVEN))  # what a manifest holds is the same model


def test_models_without_secrets_keep_their_fingerprints() -> None:
    arguments = {
        "model": "any",
        "base_url": "http://127.0.0.1:8000/v1/chat/completions?api-version=1",
        "tokenizer": "owner/name",
        "tokenizer_backend": "huggingface",
        "tokenized_requests": False,
        "add_bos_token": True,
        "think_end_token": "</think>",
        "custom_prefix_token_id": 5,
        "max_tokens": 100,
        "eos_string": "x",
        "token": True,
        "nested": {"num_key_value_heads": 8, "pad_token": "p"},
        "list": [1, None, {"a": 1.5}],
    }
    model = CandidateModel("m", "local-chat-completions", 1.0, arguments)
    # As it was before secrets were omitted.
    as_before = "dd08a673f8dd133a8830779cea403d602288d3dff89f06b9ecf51c8238c30e3a"
    assert Pool("p", (model,), "u", "r").fingerprint(model) == as_before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"header": {"Authorization": f"Bearer {KEY}"}}, f"{{'Authorization': 'Bearer {KEY}'}} or {KEY} alone"),
        ({"api_key": 'quote"back\\slash'}, '{"key": "quote\\"back\\\\slash"}'),
        ({"api_key": "schlüssel?"}, "/v1?a=schl%C3%BCssel%3F"),
        ({"base_url": "https://me:pass%40word@host"}, "Basic bWU6cGFzc0B3b3Jk, pass@word, pass%40word"),
        ({"base_url": f"https://host/v1?key={KEY}"}, f"Max retries exceeded with url: /v1?key={KEY}"),
        ({}, "no connection to https://me:pw@host/v1?sig=abc"),
        ({}, "https:/me:pw@host is not a recording"),
    ],
)
def test_texts_are_cleaned(arguments: dict[str, Any], text: str) -> None:
    remember(arguments)
    for part in ("0123456789", "quote", "schl", "bWU6", "word", "me:pw", "abc"):
        assert part not in clean(text)


def test_what_is_no_secret_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("SOME_KEY", str(tmp_path))  # names a file
    monkeypatch.setenv("ANOTHER_KEY", "not UTF-8: \udcff")
    remember({"api_key": "none", "eos_token": "stop here"})
    text = f"none of these and stop here, http://host/v1?a=b@c, {tmp_path}, f(max_tokens=5, x=y)"
    assert clean(text) == text


def test_messages_logs_streams_and_commands(capsys: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    remember({"api_key": KEY})
    monkeypatch.setenv("ANY_API_KEY", "of the environment")
    clean_logs()
    assert str(UserError(f"the server said {KEY}; of the environment")) == "the server said ***; ***"
    long = f"https://me:{KEY}@a-host-whose-name-is-rather-long.example.com/and/a/path"
    assert KEY[:9] not in shown(long) + shown({"index": [long]})
    try:
        raise ValueError(KEY)
    except ValueError as error:
        logging.getLogger("any.library").exception("failed with %r", {"key": KEY})
        assert harmless(error) is None
    assert KEY not in caplog.text and "failed with {'key': '***'}" in caplog.text and "ValueError: ***" in caplog.text
    with clean_output():
        print(KEY)
        sys.stderr.writelines([KEY, "\n"])
    assert capsys.readouterr() == ("***\n", "***\n")
    plain = ValueError("no secret")
    assert harmless(plain) is plain
    words = ["--api-key", "short", "--token=short", "--tokenizer", "name", "--ray-address", "ray://me:pw@host:1"]
    assert clean_command(words) == ["--api-key", "***", "--token=***", *words[3:6], "ray://***@host:1"]
