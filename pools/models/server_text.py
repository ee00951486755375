"""What a server says of its own responses: the tokens that it bills, and why a response ended.

lm-eval hands over texts alone. Here its API models are made to hand over texts that remember the rest.
"""

from __future__ import annotations

from typing import Any

from pools.errors import UserError, shown
from pools.secrets import clean
from pools.types import FinishReason


class ServerText(str):
    """A response of a server. tokens: read and written, as the server counts; finish_reason; each None if unsaid.

    failure: in place of a response, why there is none; so one prompt that fails takes no other of its batch along.
    """

    tokens: tuple[int, int] | None = None
    finish_reason: FinishReason | None = None
    failure: str | None = None


def keep_what_the_server_says(lm: Any, name: str) -> None:
    """Make an API model of lm-eval, of the pool's model `name`, give a ServerText for each response.

    Each reply is to one prompt (`batch_size` 1): the counts of several would be one sum. A reply that holds no text is
    then an error, which is asked again for, and no longer an empty response.
    """
    parse = lm.parse_generations

    def parse_and_keep(outputs: Any, **options: Any) -> list[str]:
        if isinstance(outputs, ServerText):  # parsed already, or a failure
            return [outputs]
        choice = the_choice(outputs)
        said = parse(outputs=outputs, **options)
        if len(said) != 1 or not _is_of(said[0], choice, getattr(lm, "think_end_token", None)):
            raise ValueError(f"its reply holds no response (lm-eval reads another): {clean(str(outputs))[:100]}")
        # JSON can hold half of a surrogate pair, as of an emoji that was cut in two, and no file can.
        text = ServerText(said[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
        text.tokens = _tokens(outputs)
        ended = choice.get("finish_reason")
        text.finish_reason = ended if ended in ("stop", "length") else None
        if text.tokens is None and getattr(lm, "tokenizer", None) is None:
            raise UserError(
                f"model {name} gives no token counts, so its cost is unknown: its server says none (`usage`); name "
                "`tokenizer` and, for a chat server, `tokenizer_backend: huggingface` in its arguments"
            )
        return [text]

    lm.parse_generations = parse_and_keep


def the_choice(reply: Any) -> dict[str, Any]:
    """The one choice of a reply to one prompt. Raises ValueError where it is not of OpenAI's form, or has no text.

    lm-eval places texts by their `index`, and a wrong one would make an empty response without a word. A choice that
    names none gets the only one there is.
    """
    try:
        choices = reply["choices"]
        if len(choices) != 1:
            raise IndexError(f"{len(choices)} choices to one prompt")
        choice = choices[0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        if not isinstance(text, str):
            raise TypeError("no text")
        index = choice.setdefault("index", 0)
        if type(index) is not int or index != 0:
            raise IndexError(f"index {shown(index)} of the only choice")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"its reply holds no response ({error or type(error).__name__}): {clean(str(reply))[:100]}"
        ) from None
    return choice


def _is_of(text: Any, choice: dict[str, Any], think_end: str | None) -> bool:
    """Whether what lm-eval reads is what the choice says; it leaves reasoning away, up to `think_end_token`."""
    content = choice["message"]["content"] if "message" in choice else choice["text"]
    return text == content or (bool(think_end) and isinstance(text, str) and content.endswith(text))


def _tokens(reply: dict[str, Any]) -> tuple[int, int] | None:
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None
    found = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not all(isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31 for count in found):
        return None
    return found  # type: ignore[return-value]
