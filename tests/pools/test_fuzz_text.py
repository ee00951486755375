"""Texts with every oddity of Unicode, empty ones and long ones: kept to the byte, or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import NUMBERS, SURROGATES, fuzz, junk, texts, told
from pools import Context, Generation, GenerationSettings, Item, UserError
from pools.cost import paper_cost
from pools.data.recording import load_recording, save_recording
from pools.data.store import TransitionStore
from pools.mdp.tree import Tree
from pools.models.api import ServerText, attach_usage
from pools.pool import CandidateModel, Pool
from pools.template import CONCATENATION, render

MEGABYTE = 1_000_000
LONG = ("", "\U0001f600" * (MEGABYTE // 4), "\x00\n" * (MEGABYTE // 2))
SETTINGS = GenerationSettings(("\n",), 8)
COST = paper_cost((1.0,), "unit")
ANY = texts(surrogates=True)


def utf8(*given_texts: str) -> bool:
    """Whether UTF-8 can hold them."""
    return not any("\ud800" <= character <= "\udfff" for text in given_texts for character in text)


@fuzz("texts: template", 300)
@given(ANY, st.lists(ANY, max_size=3))
def test_the_papers_template_joins_and_changes_nothing(query: str, responses: list[str]) -> None:
    joined = "\n\n".join([query, *responses]) + ("\n\n" if responses else "")
    assert render(CONCATENATION, Context(query, tuple(responses))) == joined


@fuzz("texts: templates of users", 300)
@given(st.lists(st.sampled_from(["{{ query }}", "{{ responses[-1] }}", "{% for r in responses %}", "{% endfor %}",
    "{{ query.__class__ }}", "{{ 1/0 }}", "{{ lipsum() }}", "{{ 'a' * 9 }}", "{#", "{{",
    "{{ query | upper }}", "{{ range(9) }}", "{% include 'x' %}", "{{ query.format(query) }}"]) | texts(),
    max_size=4).map("".join), ANY)  # fmt: skip
def test_a_users_template(template: str, query: str) -> None:
    made = told(lambda: render(template, Context(query, ("r",))), "the template")
    assert made is None or isinstance(made, str)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TransitionStore:
    return TransitionStore(tmp_path_factory.mktemp("store") / "s.sqlite")


def _kept(store: TransitionStore, context: Context, settings: GenerationSettings, made: Generation) -> None:
    before = len(store)
    put = told(lambda: store.put("model", [(context, settings, made)]), "surrogate")
    if utf8(context.query, *context.responses, *settings.until, made.response):
        assert put == [store.get("model", settings, context)] and put[0].response == made.response
    else:
        assert put is None and len(store) == before


@fuzz("texts: store", 300)
@given(st.tuples(ANY, ANY, ANY, st.lists(ANY, max_size=2)))
def test_the_store_keeps_a_text_or_says_why_not(store: TransitionStore, parts: Any) -> None:
    query, earlier, response, until = parts
    # A context is kept once, with the first response: here each has its own.
    context = Context(query, (earlier, response))
    _kept(store, context, GenerationSettings(tuple(until), 8), Generation(response, 1, 2, "stop", 0.5))


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_long_and_empty_texts_in_store_and_export(text: str, tmp_path: Path) -> None:
    store = TransitionStore(tmp_path / "s.sqlite")
    _kept(store, Context(text, (text,)), SETTINGS, Generation(text, 1, 2, "stop", 0.5))
    store.export_parquet(tmp_path / "s.parquet")
    other = TransitionStore(tmp_path / "other.sqlite")
    assert other.import_parquet(tmp_path / "s.parquet") == 1
    found = other.get("model", SETTINGS, Context(text, (text,)))
    assert found is not None and found.response == text


class Says:
    """A pool of one, whose model says the text it is told to."""

    def __init__(self, responses: list[str]) -> None:
        self.responses = responses

    def generate(self, model: int, requests: Any) -> list[Generation]:
        return [Generation(self.responses[len(c.responses)], 1, 2, "stop", 0.0) for c, _ in requests]


def _recorded(query: str, responses: list[str], score: Any, folder: Path) -> None:
    settings = GenerationSettings((query,) if query else (), 8)
    tree = Tree([Item("task", 0, query, settings, "test")], ["m"], 2, COST, Says(responses), lambda a: [score] * len(a))
    tree.require([0], [2])
    assert tree.context(0, 2) == Context(query, tuple(responses))
    pool = Pool("p", (CandidateModel("m", "hf", 1.0),), "unit", "made up")
    save_recording(tree, pool, {"suite": "s"}, folder)
    loaded = load_recording(folder).tree
    assert loaded.context(0, 2) == tree.context(0, 2)
    assert loaded.items == tree.items and loaded.contexts == tree.contexts and list(loaded.rows()) == list(tree.rows())


@fuzz("texts: tree and recording", 120)
@given(ANY, st.lists(ANY, min_size=2, max_size=2), st.sampled_from([0, 1, 0.5, True, False, -0.0]))
def test_a_recording_gives_back_every_text(tmp_path_factory: Any, query: str, responses: list[str], score: Any) -> None:
    folder = tmp_path_factory.mktemp("recording") / "r"
    if utf8(query, *responses):
        _recorded(query, responses, score, folder)
    else:
        assert told(lambda: _recorded(query, responses, score, folder), "surrogate") is None
        assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_a_recording_gives_back_long_and_empty_texts(text: str, tmp_path: Path) -> None:
    _recorded(text, [text, text], 1.0, tmp_path / "r")


SCORES = st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.1, 1.1, -1, 2, 10**350, 1e-320, True, False])


@fuzz("scores", 150)
@given(SCORES | NUMBERS | st.none() | st.text(max_size=3) | st.just([1.0]) | st.just(1j))
def test_a_score_is_a_number_from_0_to_1(score: Any) -> None:
    tree = Tree([Item("task", 0, "q", SETTINGS, "test")], ["m"], 1, COST, Says(["r"]), lambda a: [score] * len(a))
    told(lambda: tree.require([0], [1]), "score")
    number = isinstance(score, int | float) and 0 <= score <= 1
    assert bool(tree.known[0, 1]) == number
    assert not number or tree.score[0, 1] == pytest.approx(float(score))


# --- what a server says ----------------------------------------------------------------------------------------------

REPLY = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "an answer"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


def _parse(outputs: Any, **_: Any) -> list[str]:
    replies = outputs if isinstance(outputs, list) else [outputs]
    return [choice["message"]["content"] for reply in replies for choice in reply["choices"]]


@fuzz("servers", 400)
@given(st.data())
def test_a_servers_reply(data: st.DataObject) -> None:
    from fuzzing import mutated

    reply = data.draw(mutated(REPLY, surrogates=True) | junk(surrogates=True))
    lm = SimpleNamespace(parse_generations=_parse, tokenizer=None)
    attach_usage(lm, "m")
    try:
        found = told(lambda: lm.parse_generations(outputs=reply), "model m")
    except ValueError as error:  # lm-eval asks again for what is no reply
        assert "holds no response" in str(error)
        return
    for text in found or ():
        assert isinstance(text, ServerText) and utf8(text)
        assert text.tokens is None or all(type(count) is int and 0 <= count < 2**31 for count in text.tokens)
        assert text.finish_reason in (None, "stop", "length")


def test_half_of_a_surrogate_pair_from_a_server_is_replaced() -> None:
    """JSON can hold what UTF-8 cannot: a server that cuts an emoji in two sends one."""
    lm = SimpleNamespace(parse_generations=_parse, tokenizer=None)
    attach_usage(lm, "m")
    for half in SURROGATES[:2]:
        reply = json.loads(json.dumps(REPLY).replace("an answer", f"an {json.dumps(half)[1:-1]}"))
        assert lm.parse_generations(outputs=reply) == ["an \ufffd"]


def test_numbers_of_tokens_that_no_column_holds_are_none(synthetic_tree: Callable[..., Tree], tmp_path: Path) -> None:
    """A count of 2**40 tokens fitted neither the tree's column nor the recording's: the whole recording was lost."""
    lm = SimpleNamespace(parse_generations=_parse, tokenizer=None)
    attach_usage(lm, "m")
    with pytest.raises(UserError, match="gives no token counts"):
        lm.parse_generations(outputs={**REPLY, "usage": {"prompt_tokens": 2**40, "completion_tokens": 1}})
    tree = synthetic_tree(items=1)
    with pytest.raises(UserError, match="tokens"):
        tree.put(0, 1, replace(tree.generation(0, 1), tokens_in=2**40), 0.0)
