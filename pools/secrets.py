"""What of a pool is a secret: omitted from its identity, masked in what is written, wiped from what is said.

Secrets are told by the names of arguments (headers, keys, tokens, passwords), at any depth, and in URLs. The values met
so far, and those of the environment, are wiped from every message, log record and stream of the command line.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from typing import Any, TextIO, cast
from urllib.parse import quote, unquote

MASK = "***"
SHORTEST = 6
"""Characters of a secret that is wiped from texts: a key such as `none` is a word, too."""

# Of a name in lower case, its words joined by `_`.
_SECRET = re.compile(
    r"(?:access|api|auth|bearer|hf|private|refresh|session)(?:key|token)"
    r"|secret|passw|passphrase|credential|authorization"
    r"|(?:^|_)(?:auth|bearer|cookies?|headers?|jwt|keys?|pwd|(?:access|api|auth)_tokens|token)(?:_|$)"
)
# What a tokenizer or a network calls a token or a key.
_ORDINARY = re.compile(
    r"(?:audio|begin|bos|cls|end|eos|eot|image|mask|new|next|pad|per|prefix|sep|special|start|stop|think|top|unk|video)"
    r"_token|token_(?:budget|count|ids?|limit|type)|key_(?:dim|mapping|norm|size|value)"
)
# A path that was a URL has one slash.
_USERINFO = re.compile(r"(://|:/(?=[^\s/?#@]+:))([^\s/?#'\"<>]+)@")
# A parameter of a URL, or an argument as lm-eval's `--model_args` has them.
_PARAMETER = re.compile(r"(^|[?&,;\s])([\w.~%+-]+)=([^&,;#\s'\"<>]+)")

_known: set[str] = set()


def masked(value: Any) -> Any:
    """Plain data with `***` in place of every secret."""
    return _without(value, MASK)


def identity(value: Any) -> Any:
    """Plain data without its secrets: equal for two that differ in keys, headers and credentials alone."""
    return _without(value, "")


def _without(value: Any, mask: str) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if mask or not _is_secret(k, v)}
        return {k: mask if _is_secret(k, v) else _without(v, mask) for k, v in kept.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without(part, mask) for part in value)
    return _without_credentials(value, mask) if isinstance(value, str) else value


def _is_secret(name: Any, value: Any) -> bool:
    """Whether an argument holds a secret; `token: true` (of transformers) says only that one is to be used."""
    return value is not None and not isinstance(value, bool) and value != "" and secret_name(str(name))


@cache
def secret_name(name: str) -> bool:
    """Whether what is called so is a secret: `api_key`, `hf_token`, `header`, but not `tokenizer` or `eos_token`."""
    return bool(_SECRET.search(_ORDINARY.sub("", _words(name))))


def _words(name: str) -> str:
    return "_".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)).lower()


def _without_credentials(text: str, mask: str) -> str:
    """A text without the credentials of the URLs in it, and without its secret parameters."""

    def parameter(found: re.Match[str]) -> str:
        before, name, _ = found.groups()
        if not _is_secret_parameter(before, name):
            return found[0]
        return f"{before}{name}={mask}" if mask else ""

    text = _USERINFO.sub(rf"\1{mask}@" if mask else r"\1", text) if ":/" in text else text
    return _PARAMETER.sub(parameter, text) if "=" in text else text


def _is_secret_parameter(before: str, name: str) -> bool:
    return secret_name(name) or (before in ("?", "&") and name.lower() in ("code", "sig", "signature"))


def remember(value: Any, name: str = "") -> None:
    """Wipe the secrets of plain data, or of one value of that name, from texts from now on."""
    _known.update(form for text in _secrets(value, name) for form in _forms(text))


def _secrets(value: Any, name: str = "", secret: bool = False) -> Iterator[str]:
    """The secret texts of plain data: what a server may echo and a library may say."""
    secret = secret or _is_secret(name, value)
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _secrets(part, str(key), secret)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _secrets(part, "", secret)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        text = str(value)
        if secret:
            yield from (text, text.rpartition(" ")[2])  # `Bearer KEY`
        for _, userinfo in _USERINFO.findall(text) if ":/" in text else ():
            plain = unquote(userinfo)
            user, _, password = plain.partition(":")
            yield from (userinfo, plain, unquote(password) or user)
            yield base64.b64encode(plain.encode(errors="replace")).decode()
        for before, parameter, given in _PARAMETER.findall(text) if "=" in text else ():
            if _is_secret_parameter(before, parameter):
                yield from (given, unquote(given))


@cache
def _forms(secret: str) -> tuple[str, ...]:
    """A secret as itself and as Python, JSON and a URL write it; none if it is too short to be one."""
    secret = secret.strip()
    if len(secret) < SHORTEST:
        return ()
    # A variable of the environment may hold what UTF-8 cannot.
    in_url = (quote(secret, safe, errors="replace") for safe in ("", "/"))
    written = (repr(secret)[1:-1], json.dumps(secret)[1:-1], *in_url)
    return tuple(dict.fromkeys((secret, *written)))


def clean(text: str) -> str:
    """A text without the secrets that are known: those remembered, of the environment, and of URLs in it."""
    of_environment = (form for item in os.environ.items() for text in _of_variable(*item) for form in _forms(text))
    for secret in sorted({*_known, *of_environment}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _without_credentials(text, MASK)


@cache
def _of_variable(name: str, value: str) -> tuple[str, ...]:
    return () if os.path.exists(value) else tuple(_secrets(value, name))  # SSH_AUTH_SOCK names a file


def clean_command(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line without secrets, those behind an option of a secret's name included."""
    pairs = zip(("", *arguments), arguments, strict=False)
    option = re.compile(r"-[^=]+")
    return [MASK if option.fullmatch(before) and secret_name(before) else clean(word) for before, word in pairs]


def harmless(error: BaseException) -> BaseException | None:
    """The error, as the cause of another; None if what is shown of it would hold a secret."""
    shown = f"{error!r}\n{''.join(traceback.format_exception(error))}"
    return error if clean(shown) == shown else None


@cache
def clean_logs() -> None:
    """Wipe secrets from every log record of this process: lm-eval logs requests with their headers, asyncio errors."""
    make = logging.getLogRecordFactory()

    def make_clean(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        try:
            message = record.getMessage()
        except Exception:  # its arguments do not fit; logging says so
            return record
        if (cleaned := clean(message)) != message:
            record.msg, record.args = cleaned, None
        if record.exc_info and record.exc_info[1] is not None and harmless(record.exc_info[1]) is None:
            record.exc_text = clean("".join(traceback.format_exception(*record.exc_info)).rstrip())
            record.exc_info = None
        return record

    logging.setLogRecordFactory(make_clean)


class _CleanStream:
    """A text stream from which secrets are wiped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(clean(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def clean_output() -> Iterator[None]:
    """Wipe secrets from all that is printed, tracebacks and other libraries' words included."""
    out, err = (cast(TextIO, _CleanStream(stream)) for stream in (sys.stdout, sys.stderr))
    clean_logs()
    with redirect_stdout(out), redirect_stderr(err):
        yield
