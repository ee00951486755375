from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import routers
from harness.evaluation.rollout import rollout
from pools.errors import UserError
from pools.types import Context
from routers import RouterRequest, RoutingStates, registry
from routers.router import callable_models


def states(hop: int, count: int = 3) -> RoutingStates:
    contexts = [Context(f"q{n}", ("r",) * hop) for n in range(count)]
    return RoutingStates(contexts, np.full(count, hop), np.zeros(count), np.full((count, 2), -1))


def test_ours_are_known_and_imported_late() -> None:
    assert {"single", "pipeline", "random", "oracle", "hierrouter"} <= set(routers.names())
    code = "import routers, sys; print(any(m in sys.modules for m in ('torch', 'transformers', 'sklearn', 'lm_eval')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_router_has_a_name_that_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry.ROUTERS, "_entries", dict(registry.ROUTERS._entries))
    mine = tmp_path / "mine.py"
    mine.write_text("import routers\n\n@routers.register('mine\u202e')\ndef mine(request): ...\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"{mine} .*router 'mine\\u202e' holds U\+202E"):
        routers.load(str(mine))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"mine.py registers no router: decorate one with @register\(NAME\)"),
        (
            "@register('a')\ndef a(request): ...\n@register('b')\ndef b(request): ...",
            "mine.py registers several routers: name one, as .*mine.py:a, of a, b",
        ),
        (
            "@register('lone')\nclass Lone:\n    def fit(self, train, validation, request): ...",
            "router lone has a `fit` ",
        ),
    ],
)
def test_a_file_without_a_usable_router_is_told_in_one_line(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry.ROUTERS, "_entries", dict(registry.ROUTERS._entries))
    mine = tmp_path / "mine.py"
    mine.write_text(f"from routers import register\n\n{text}\n")
    asking = (registry.learns, registry.router_options, lambda name: registry.options_asked(name, {}), routers.load)
    for ask in asking:
        with pytest.raises(UserError, match=message) as caught:
            ask(str(mine))
        assert "''" not in str(caught.value) and "\n" not in str(caught.value)


def test_single_and_pipeline_stop_after_their_models() -> None:
    request = RouterRequest(models=("a", "b", "c"), max_hops=2)
    single = routers.load("single:b", request)
    assert [single.act(states(hop)).tolist()[0] for hop in (0, 1)] == [1, 3]
    pipeline = routers.load("pipeline:c>a", request)
    assert [pipeline.act(states(hop)).tolist()[0] for hop in (0, 1)] == [2, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hirrouter", "did you mean hierrouter"),
        ("single:z", "the pool has a, b"),
        ("pipeline:a>b>a", "pipeline of 3 models with 2 hops"),
        ("oracle", "recording"),
        ("hierrouter", "learns from train items"),
        ("hierrouter:fast", "expected hierrouter or hierrouter:stochastic"),
    ],
)
def test_what_cannot_be_built_says_why(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        routers.load(name, RouterRequest(models=("a", "b"), max_hops=2))
    assert "\n" not in str(caught.value)


def test_random_draws_every_model_and_repeats_itself() -> None:
    router = routers.load("random", RouterRequest(models=("a", "b", "c"), seed=4))
    drawn = router.act(states(0, 600))
    assert np.bincount(drawn).min() > 150
    assert (drawn == router.act(states(0, 600))).all()


@pytest.mark.parametrize(
    ("router", "called"),
    [
        ("single:{1}", {1}),
        ("pipeline:{2}>{0}", {0, 2}),
        ("best-pipeline", None),
        ("best-pipeline-per-task", {0, 1, 2}),
        ("query-only", None),
        ("cascade", None),
        ("random", {0, 1, 2}),
        ("ridge", {0, 1, 2}),
    ],
)
def test_the_models_that_a_router_may_call_hold_all_that_it_calls(
    request_: RouterRequest, router: str, called: set[int] | None
) -> None:
    made, tree = routers.load(router.format(*request_.models), request_), request_.evaluation
    assert tree is not None
    may = set(callable_models(made, len(tree.models)))
    assert called is None or may == called
    nodes = np.unique(rollout(made, tree).node)
    assert {model for node in nodes.tolist() for model in tree.pipeline(node)} <= may <= set(range(len(tree.models)))
