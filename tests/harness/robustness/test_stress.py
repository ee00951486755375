"""`stress` on constructed recordings where the right answer is known, and as a command."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import harness as api
from harness.evaluation.metrics import told_apart
from harness.robustness.card import Card, Cell, words
from harness.robustness.scenarios import QUESTIONS, Trees, scenarios
from harness.robustness.stress import as_markdown
from harness.robustness.tables import signed, stress_grids
from harness.robustness.trial import GOES_ON, Asked, trial
from harness.runs import progress
from pools.cost import paper_cost
from pools.data.recording import load_recording, save_recording
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.pool import CandidateModel, Pool
from pools.types import Generation, GenerationSettings, Item
from routers.router import AmongModels

MODELS, SETTINGS = ("first", "second", "third"), GenerationSettings((), 8)
SPLITS = ("train", "train", "validation", "test", "test")
KEYED = '''
import numpy as np
from routers import register

@register("keyed")
class Keyed:
    """Sends what begins with "Which" to the first model, all else to the second."""
    def __init__(self, request):
        self.stop = len(request.models)
    def act(self, states):
        which = np.array([c.query.startswith("Which") for c in states.contexts])
        return np.where(states.hop == 0, np.where(which, 0, 1), self.stop)
'''


class Says:
    """One response a model; each costs ten tokens, of the third model a hundred."""

    def generate(self, model: int, requests: Any) -> list[Generation]:
        return [Generation(MODELS[model], 5, 95 if model == 2 else 5, "stop", 0.0) for _ in requests]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 items of two tasks. "Which ..." is known to the first model, "Where ..." to the second, all to the third."""
    items = [
        Item(
            f"task {n % 2}", n, f"{'Which' if n % 4 < 2 else 'Where'} of the {n} gardens", SETTINGS, SPLITS[n // 4 % 5]
        )
        for n in range(100)
    ]

    def score(answers: Any) -> list[float]:
        return [float(said == "third" or said == ("first" if i.doc_id % 4 < 2 else "second")) for i, said in answers]

    tree = Tree(items, MODELS, 2, paper_cost((0.001,) * 3, "unit"), Says(), score)
    rows, nodes = np.indices(tree.known.shape)
    tree.require(rows.ravel(), nodes.ravel())
    folder = tmp_path_factory.mktemp("stress") / "recording"
    pool = Pool("p", tuple(CandidateModel(m, "hf", 0.001) for m in MODELS), "unit", "made up")
    save_recording(tree, pool, {"suite": "s"}, folder)
    return folder


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("router") / "keyed.py"
    path.write_text(KEYED)
    return str(path)


def cells(card: Card, router: str) -> dict[str, Cell]:
    return {f"{cell.question} {cell.name}": cell for cell in card.routers[router].cells}


def test_a_router_that_keys_on_one_word_loses_where_it_changes_and_a_constant_loses_nothing(
    recording: Path, keyed: str
) -> None:
    card = api.stress(keyed, recording, only=["wording"], cost_weight=1.0)
    assert list(card.routers) == ["keyed", "single:third"]
    found, constant = cells(card, "keyed"), cells(card, "single:third")
    assert found["as trained as trained"].value == pytest.approx(1 - 0.01)
    assert found["as trained as trained"].ahead == pytest.approx(0.1 - 0.01)
    for change, lost in {"lower case": 0.5, "polite": 0.5, "spacing": 0.0, "typos 25%": 0.0}.items():
        cell = found[f"wording {change}"]
        assert (cell.lost, cell.flips) == (pytest.approx(lost), pytest.approx(lost)), change
        assert cell.lost_interval is not None and (cell.lost_interval[0] > 0) == (lost > 0)
    for cell in constant.values():
        assert (cell.ahead, cell.lost or 0.0, cell.flips or 0.0) == (0.0, 0.0, 0.0)


def test_a_price_that_is_not_told_costs_what_the_router_that_was_told_saves(recording: Path) -> None:
    card = api.stress("best-pipeline:1", recording, only=["prices"], cost_weight=1.0)
    found = cells(card, "best-pipeline:1")
    # The third model is right on all for 0.1; at ten times its price the others are better: half of the items for 0.01.
    assert found["prices x10, told"].value == pytest.approx(0.5 - 0.01)
    assert found["prices x0.5, told"].value == pytest.approx(1 - 0.05)
    # Nothing is learnt by it, so it is chosen anew from what it is told: the old prices.
    assert found["prices x10, not told"].value == pytest.approx(1 - 1.0)
    assert found["prices x10, not told"].lost == pytest.approx(0.49)
    assert found["prices x10, told"].lost is None


def parts(recording: Path) -> Trees:
    tree = load_recording(recording).tree
    return Trees(*(tree.select(split) for split in ("train", "validation", "test")))


@pytest.mark.parametrize("router", ["knn", "ridge", "fitted-q"])
def test_a_retired_model_is_never_called_and_the_best_of_the_others_is(recording: Path, router: str) -> None:
    known = parts(recording)
    asked = Asked(router, {}, 1.0, 1)
    as_trained: Any = asked.knowing(known)
    for scenario in scenarios(known, ["retired"], 1)[0][1:]:
        tried = trial(asked, scenario, as_trained)
        assert tried.how == GOES_ON
        left = scenario.trees()
        assert scenario.part not in left.test.models and len(left.test.models) == 2
        # What is left is right on its own questions. (What `fitted-q` expects of a later call is of the third model.)
        if scenario.part == "third" and router != "fitted-q":
            assert tried.quality.mean() > 0.9
        if scenario.part != "third":  # the third model is right on all
            assert tried.quality.mean() == 1.0


def test_among_models_speaks_their_numbers(recording: Path) -> None:
    class Ranks:
        def ranking(self, states: Any) -> Any:
            assert states.actions.tolist() == [[0, 2]]
            return np.array([[0.1, 0.9, 0.4, 0.2]])  # of the three models and STOP

        def act(self, states: Any) -> Any:
            return self.ranking(states).argmax(axis=1)

    from pools.types import Context
    from routers import RoutingStates

    states = RoutingStates([Context("q", ("a", "b"))], np.array([2]), np.zeros(1), np.array([[0, 1]]))
    assert AmongModels(Ranks(), 3, (0, 2)).act(states).tolist() == [1]  # the third, the second of those kept


def test_what_is_left_out_is_not_learnt_from(recording: Path) -> None:
    known = parts(recording)
    made = {scenario.key: scenario for scenario in scenarios(known, QUESTIONS, 1)[0]}
    left = made["tasks / task 0"].trees()
    assert {item.task for item in (*left.train.items, *left.validation.items)} == {"task 1"}
    assert {item.task for item in left.test.items} == {"task 0"}
    shares = [set(made[f"items / {share}"].trees().train.items) for share in ("25%", "50%")]
    assert shares[0] < shares[1] < set(known.train.items)
    assert len(shares[0]) == round(0.25 * len(known.train.items))
    few = made["new / 20 outcomes / draw 1"].trees()
    assert len(few.train.items) == 20 and not few.validation.items


def test_a_call_that_was_stopped_goes_on_from_there(recording: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"only": ["items", "seeds"], "cost_weight": 1.0, "keep": tmp_path / "trials"}
    done: list[int] = []

    def stop(trials: int, of: int, last: str) -> None:
        done.append(trials)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.stress("knn", recording, on_trial=stop, **asked)
    again: list[int] = []
    card = api.stress("knn", recording, on_trial=lambda trials, of, last: again.append(trials), **asked)
    assert again[:2] == [done[-1], done[-1] + 1] and again[-1] == 2 * (1 + 2 + 4)
    assert card.routers == api.stress("knn", recording, only=["items", "seeds"], cost_weight=1.0).routers


def test_as_a_command_with_a_page(
    small_recording: Path, tmp_path: Path, harness: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    out, only = tmp_path / "card", ("--only", "tasks", "wording", "retired")
    command = ("stress", "--recording", small_recording, "--router", "knn", *only, "--processes", 2, "--out", out)
    assert harness(*command) == 0
    shown = capsys.readouterr().out
    assert "a task that it never saw" in shown and "knn: as trained" in shown
    card = Card.model_validate_json((out / "stress.json").read_bytes())
    assert sorted(path.name for path in out.iterdir()) == ["stress.json", "stress.md"]
    assert {cell.question for cell in card.routers["knn"].cells} == {"as trained", "tasks", "wording", "retired"}
    assert harness("report", out) == 0
    page = (out / "report.html").read_text()
    assert all(word in page for cell in card.routers["knn"].cells for word in (cell.name, f"{cell.ahead:+.3f}"[1:]))
    assert (out / "report-figures" / "overview.png").is_file()


def test_what_cannot_be_asked_is_said(recording: Path) -> None:
    known = parts(recording)
    few = Trees(known.train.subset(range(8)), known.validation, known.test.subset(range(12)))
    made, omitted = scenarios(few, QUESTIONS, 1)
    said = {each.question: str(each) for each in omitted}
    assert {scenario.question for scenario in made} == {"as trained", *QUESTIONS} - {"tasks", "kinds", "items", "new"}
    assert said["tasks"].startswith("tasks: not asked: of a task at least 10 test items are needed")
    assert said["kinds"] == "kinds: not asked: no task has several kinds"
    assert said["items"].startswith("items: not asked: half of 8 train items")
    assert said["new"] == "new: not asked: there are only 8 train items"
    half = scenarios(Trees(known.train.subset(range(20)), known.validation, known.test), ["items"], 1)
    assert [scenario.name for scenario in half[0][1:]] == ["25%", "50%"]
    assert str(half[1][0]).startswith("items: without 5%, 10%: of 20 train items")
    card = api.stress("random", recording, only=["kinds", "seeds"], cost_weight=1.0)
    assert card.omitted == ("kinds: not asked: no task has several kinds",)
    assert "Left out: kinds: not asked: no task has several kinds." in as_markdown(card)
    with pytest.raises(UserError, match="nothing that is asked can be asked of this recording: kinds: not asked"):
        api.stress("random", recording, only=["kinds"])


def test_what_prints_as_nothing_has_neither_mark_nor_sign() -> None:
    assert [signed(number) for number in (-0.0004, 0.0, 0.0004, -0.0006)] == ["0.000", "0.000", "0.000", "-0.001"]
    assert told_apart(-0.0004, (-0.00045, -0.0001)) == "no" and told_apart(-0.1, (-0.2, -0.05)) == "worse"


def test_a_single_model_is_said_to_be_gone_if_it_is_itself_retired(recording: Path) -> None:
    card = api.stress("single:third", recording, only=["retired"], cost_weight=1.0)
    cell = cells(card, "single:third")["retired each in turn"]
    assert (cell.parts, cell.cannot) == (("first", "second"), ("third",))
    (grid,) = stress_grids(card)
    assert grid.rows[0].cells[1].lines[-2:] == ("mean of 2 of 3: cannot", "be had without third")
    assert list(card.routers["single:third"].cannot.values()) == ["it is, or calls, the model that is gone"]


def test_losses_on_unseen_tasks_are_named_the_largest_first(recording: Path) -> None:
    def cell(name: str, lost: float) -> Cell:
        near = (lost - 0.01, lost + 0.01)
        return Cell(
            question="tasks", name=name, parts=(name,), items=20, value=0.0, ahead=-0.0001,
            ahead_interval=(-0.0002, 0.0), lost=lost, lost_interval=near,
            flips=None, worst=None, worst_ahead=None, how=(),
        )  # fmt: skip

    trained = cell("as trained", 0.0).model_copy(update={"question": "as trained", "ahead": 0.4})
    said = words([trained, cell("a", 0.2), cell("b", 0.9), cell("c", 0.001), cell("d", 0.3), cell("e", 0.1)])[1]
    assert "ahead on none, behind on none, of 5; " in said
    assert said.endswith("it loses 0.900 on b, 0.300 on d, 0.200 on a, less on 1 more")


def test_another_card_is_not_overwritten_and_the_page_on_the_same_goes(
    small_recording: Path, tmp_path: Path, harness: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "stress",
        "--recording",
        small_recording,
        "--router",
        "random",
        "--processes",
        1,
        "--out",
        tmp_path / "c",
    )
    assert harness(*command, "--only", "seeds") == 0 and harness("report", tmp_path / "c") == 0
    assert (tmp_path / "c" / "report.html").is_file()
    assert f"go on with --out {tmp_path / 'c'}" in capsys.readouterr().out
    assert harness(*command, "--only", "wording") == 2
    assert "holds a card with other options" in capsys.readouterr().err
    assert (tmp_path / "c" / "report.html").is_file()
    assert harness(*command, "--only", "seeds") == 0
    assert not (tmp_path / "c" / "report.html").exists() and not (tmp_path / "c" / "report-figures").exists()
    assert harness("compare", tmp_path / "c", tmp_path / "c") == 2
    assert "is a card of python -m harness stress" in capsys.readouterr().err
    assert harness("report", tmp_path / "none") == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--router single:foo", "unknown model 'foo'"),
        ("--router hierrouter:foo", "unknown router hierrouter:foo"),
        ("--only words", "--only words: expected some of tasks"),
        ("--router hirrouter", "did you mean hierrouter"),
        ("--recording {tmp}", "is not a recording"),
    ],
)
def test_bad_input(
    arguments: str,
    message: str,
    tmp_path: Path,
    small_recording: Path,
    harness: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = arguments.format(tmp=tmp_path).split()
    where = () if "--recording" in words else ("--recording", small_recording)
    assert harness("stress", *where, *words, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_the_card_reads_back(recording: Path) -> None:
    card = api.stress("random", recording, only=["seeds"], cost_weight=1.0)
    assert Card.model_validate_json(json.dumps(card.model_dump(mode="json"))) == card


def test_in_a_pipe_a_line_comes_by_the_clock_before_the_first_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_TRIALS", 0.01)
    written = io.StringIO()
    with progress.trial_progress(Console(file=written, width=80), "kept there") as on_trial:
        on_trial(0, 7, "")
        deadline = time.monotonic() + 10
        while written.getvalue().count("0/7 trials") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        on_trial(7, 7, "single:a: as trained")  # not an emoji
    assert written.getvalue().startswith("kept there\n0/7 trials, 0 s\n")
    assert "7/7 trials, 0 s: single:a: as trained\n" in written.getvalue()
