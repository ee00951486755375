"""What a server says of its own responses: the tokens that it bills, and why a response ended.

lm-eval hands over texts alone. Here its API models are made to hand over texts that remember the rest.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

from pools.errors import UserError
from pools.types import FinishReason


class ServerText(str):
    """A response of a server. tokens: read and written, as the server counts; finish_reason; each None if unsaid."""

    tokens: tuple[int, int] | None = None
    finish_reason: FinishReason | None = None


def keep_what_the_server_says(lm: Any, name: str) -> None:
    """Make an API model of lm-eval, of the pool's model `name`, give a ServerText for each response.

    A reply that holds no text is then an error, which lm-eval asks again for, and no longer an empty response.
    """
    parse = lm.parse_generations

    def parse_and_keep(outputs: Any, **options: Any) -> list[str]:
        replies = outputs if isinstance(outputs, list) else [outputs]
        for reply in replies:
            _check(reply)
        # JSON can hold half of a surrogate pair, as of an emoji that was cut in two, and no file can.
        said = parse(outputs=outputs, **options)
        texts = [ServerText(t.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")) for t in said]
        if len(texts) == len(replies):  # a reply to several prompts says only their sum
            for text, reply in zip(texts, replies, strict=True):
                text.tokens = _tokens(reply)
                ended = reply["choices"][0].get("finish_reason")
                text.finish_reason = ended if ended in ("stop", "length") else None
        if getattr(lm, "tokenizer", None) is None and any(text.tokens is None for text in texts):
            raise UserError(
                f"model {name} gives no token counts, so its cost is unknown: its server says none (`usage`); name "
                "`tokenizer` and, for a chat server, `tokenizer_backend: huggingface` in its arguments"
            )
        return list(texts)

    lm.parse_generations = parse_and_keep


def ask_one_as_several(lm: Any) -> None:
    """Make an API model's single requests fail as those do that are sent several at a time (`num_concurrent` above 1).

    The timeout then holds for the whole reply and not for each read: a server that sends a byte now and then would be
    waited for for good. And lm-eval asks again for what it took too long to get, and for a reply without a text.
    """
    call = lm.model_call

    def call_in_time(*arguments: Any, **named: Any) -> Any:
        replies: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def ask() -> None:
            try:
                reply = call(*arguments, **named)
                if named.get("generate", True):
                    _check(reply)
                replies.put((reply, None))
            except BaseException as error:
                replies.put((None, error))

        threading.Thread(target=ask, daemon=True).start()
        try:
            reply, error = replies.get(timeout=lm.timeout + 1)  # what the client itself notices says more
        except queue.Empty:
            raise TimeoutError(f"no whole reply within {lm.timeout} seconds") from None
        if error is not None:
            raise error
        return reply

    lm.model_call = call_in_time


def _check(reply: Any) -> None:
    """Raise ValueError where the reply is not of OpenAI's form, or has a choice without text."""
    try:
        for choice in reply["choices"]:
            text = choice["message"]["content"] if "message" in choice else choice["text"]
            if not isinstance(text, str):
                raise TypeError("no text")
        if not reply["choices"]:
            raise IndexError("no choice")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"its reply holds no response ({error or type(error).__name__}): {str(reply)[:100]}") from None


def _tokens(reply: dict[str, Any]) -> tuple[int, int] | None:
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None
    found = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not all(isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31 for count in found):
        return None
    return found  # type: ignore[return-value]
