"""lm-eval alone, lm-eval with our model, and our own `run` give the same score to every item."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from shipped import RECORDING

import harness
import harness.serving.lm  # registers the model
from chat_server import Handler, chat_server
from harness.__main__ import main
from harness.evaluation.rollout import rollout
from harness.serving.app import create_app
from harness.serving.batcher import Dispatcher
from harness.serving.routed import routed
from pools.data.recording import load_recording
from pools.errors import UserError


def lm_eval(model: str, arguments: dict[str, Any], task: str, folder: Path, **options: Any) -> Any:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return simple_evaluate(
        model, model_args=arguments, tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True, **options
    )


def samples(results: Any, task: str) -> dict[int, Any]:
    return {sample["doc_id"]: sample for sample in results["samples"][task]}


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str) -> dict[tuple[str, str, int], float]:
    monkeypatch.setattr(sys, "argv", ["harness", "run", "--out", str(out), "--split", "all", *arguments])
    main()
    rows = pq.read_table(out / "items.parquet").to_pylist()
    return {(row["router"], row["task"], row["doc_id"]): row["quality"] for row in rows}


@pytest.mark.parametrize(("model", "chat"), [("tiny-a", False), ("tiny-b", True)])
def test_live_single_model_scores_as_plain_lm_eval(
    model: str, chat: bool, tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = {"pretrained": str(tiny_pool_file.parent / model), "dtype": "float32", "device": "cpu", "batch_size": 4}
    plain = samples(lm_eval("hf", hf, "tiny_text", tiny_tasks, apply_chat_template=chat), "tiny_text")
    live = ("--live", "--pool", str(tiny_pool_file), "--suite", str(tiny_tasks / "suite.yaml"))
    store = ("--store", str(tmp_path / "store.sqlite"))
    ours = run(monkeypatch, tmp_path / "out", *live, *store, "--router", f"single:{model}")
    scores = {doc_id: sample["odd"] for doc_id, sample in plain.items()}
    assert {0.0, 1.0} == set(scores.values())
    assert {doc_id: quality for (_, _, doc_id), quality in ours.items()} == scores
    routed = {"pool": str(tiny_pool_file), "router": f"single:{model}", "store": str(tmp_path / "routed.sqlite")}
    through = samples(lm_eval("routed", routed, "tiny_text", tiny_tasks), "tiny_text")
    assert {n: s["resps"] for n, s in through.items()} == {n: s["resps"] for n, s in plain.items()}


@pytest.mark.parametrize(
    ("router", "tasks_of"),
    [
        ("single:registry-north", ("records",)),
        ("pipeline:reader>calculator", ("stories",)),
    ],
)
def test_routed_on_the_recording_scores_as_run(
    router: str, tasks_of: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks

    ours = run(monkeypatch, tmp_path / "out", "--router", router, "--task", *tasks_of)
    arguments = {"router": router, "recording": str(RECORDING)}
    documents = json.loads((RECORDING / "manifest.json").read_text())["limit"]  # None: all of them
    for task in tasks_of:
        results = lm_eval("routed", arguments, task, Path(tasks.__file__).parent, limit=documents)
        theirs = {doc_id: float(sample["exact_match"]) for doc_id, sample in samples(results, task).items()}
        mine = {doc_id: q for (name, t, doc_id), q in ours.items() if (name, t) == (router, task)}
        assert len(mine) >= len(theirs) - 2
        assert mine == {doc_id: theirs[doc_id] for doc_id in mine}
        assert sum(mine.values()) > 0
        ledger = results["config"]["routed"]
        models = router.partition(":")[2].split(">")
        assert ledger["calls"] == dict.fromkeys(models, 1) and ledger["hops"] == len(models)
        assert ledger["pipelines"] == {" > ".join(models): 1}
        overall = json.loads((tmp_path / "out" / "summary.json").read_text())["routers"][router]["overall"]
        assert ledger["cost"] == pytest.approx(overall["cost"], rel=0.01)  # some questions differ in white space alone
        assert ledger["tasks"] == {task: {key: ledger[key] for key in ledger["tasks"][task]}}


def test_what_an_answer_begins_with_is_told_apart_on_a_recording(
    tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    """The model with a chat template was given it as the beginning of its own message; lm-eval sends it as one text."""
    shutil.copy(tiny_tasks / "data.py", tmp_path)
    task = tmp_path / "tiny_begun.yaml"
    text = (tiny_tasks / "tiny_text.yaml").read_text().replace("tiny_text", "tiny_begun")
    task.write_text(f'{text}\ngen_prefix: "It is"\n')
    out = harness.record(
        str(tiny_pool_file), out=tmp_path / "made", tasks=[str(task)], max_hops=2, store=tmp_path / "s.sqlite"
    )
    tree = load_recording(out).tree
    assert {item.prefill.strip() for item in tree.items} == {"It is"}
    arguments = {"router": "pipeline:tiny-b>tiny-a", "recording": str(out)}
    given = samples(lm_eval("routed", arguments, "tiny_begun", tmp_path), "tiny_begun")
    node = int(tree.child(tree.child(0, 1), 0))
    assert {item.doc_id: [[tree.generation(n, node).response]] for n, item in enumerate(tree.items)} == {
        doc_id: sample["resps"] for doc_id, sample in given.items()
    }


def test_multiple_choice_is_scored_by_the_last_hops_model(
    tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    hf = {"pretrained": str(tiny_pool_file.parent / "tiny-a"), "dtype": "float32", "device": "cpu", "batch_size": 4}
    plain = samples(lm_eval("hf", hf, "tiny_choice", tiny_tasks), "tiny_choice")

    ledgers = []

    def routed(router: str, hops: int) -> dict[int, Any]:
        arguments = {
            "pool": str(tiny_pool_file),
            "router": router,
            "max_hops": hops,
            "store": str(tmp_path / "s.sqlite"),
        }
        results = lm_eval("routed", arguments, "tiny_choice", tiny_tasks)
        ledgers.append(results["config"]["routed"])
        return samples(results, "tiny_choice")

    def likelihoods(given: dict[int, Any]) -> list[float]:
        return [float(resp[0][0]) for n in sorted(given) for resp in given[n]["resps"]]

    for router, hops in (("single:tiny-a", 1), ("single:tiny-a", 2)):
        assert likelihoods(routed(router, hops)) == pytest.approx(likelihoods(plain), abs=1e-3)
    after_b = likelihoods(routed("pipeline:tiny-b>tiny-a", 2))
    assert after_b != pytest.approx(likelihoods(plain), abs=1e-3)  # it has read what tiny-b answered
    # Each of the three choices is a call; a router that stopped is scored by the model that answered.
    calls = {"tiny-a": 3}, {"tiny-a": 4}, {"tiny-a": 3, "tiny-b": 1}
    assert tuple(ledger["calls"] for ledger in ledgers) == calls
    assert [list(ledger["pipelines"]) for ledger in ledgers] == [["tiny-a"], ["tiny-a"], ["tiny-b > tiny-a"]]


@pytest.mark.parametrize("concurrent", [1, 4])
@pytest.mark.parametrize(
    ("kind", "reply", "said"),
    [
        ("local-completions", (500, {"error": "out of memory"}), "did not answer: status 500: out of memory; its log"),
        ("local-completions", (200, {"choices": [{"index": 0, "logprobs": None}]}), "holds no log-probabilities"),
        ("local-chat-completions", (200, {}), "Loglikelihood is not supported for chat completions.*; use `local-comp"),
    ],
)
def test_a_server_that_scores_no_choices_is_said_in_a_line(
    kind: str, reply: Any, said: str, concurrent: int, tiny_model_dir: Path, tmp_path: Path
) -> None:
    from lm_eval.api.instance import Instance

    def answers(handler: Handler, question: str, before: int) -> bool:
        handler.reply(*reply)
        return True

    with chat_server(answers) as server:
        given = {"model": "any", "base_url": server.url, "tokenizer": str(tiny_model_dir), "num_concurrent": concurrent}
        given |= {"tokenizer_backend": "huggingface", "max_retries": 1}
        model = {"name": "far", "lm_eval": kind, "arguments": given, "base_rate": 1, "chat_template": "chat" in kind}
        pool = tmp_path / "pool.yaml"
        pool.write_text(json.dumps({"name": "p", "cost_unit": "u", "rates": "r", "models": [model]}))
        lm = harness.RoutedLM(str(pool), "single:far", max_hops=1, store=str(tmp_path / "s.sqlite"))
        with pytest.raises(UserError, match=f"model far.*{said}") as error:
            lm.loglikelihood([Instance("loglikelihood", {}, ("Question 1", " yes"), 0)])
    assert "\n" not in str(error.value)


def test_an_argument_that_is_none_is_told(small_recording: Path) -> None:
    with pytest.raises(UserError, match=r"no argument 'recordng'; did you mean recording\?"):
        harness.RoutedLM(router="random", recordng=str(small_recording))
    # As lm-eval reads `--model_args`: what is no number or truth value is a text.
    for name, given in (
        ("allow_stop", "no"),
        ("max_hops", "two"),
        ("max_hops", 2.7),
        ("seed", "x"),
        ("cost_weight", "a"),
    ):
        with pytest.raises(UserError, match=f"model routed: {name}={given}: expected"):
            harness.RoutedLM(router="random", recording=str(small_recording), **{name: given})


def test_what_a_recording_cannot_do_says_so(small_recording: Path, tiny_tasks: Path) -> None:
    arguments = {"router": "single:reader", "recording": str(small_recording)}
    with pytest.raises(UserError, match="no likelihoods"):
        lm_eval("routed", arguments, "tiny_choice", tiny_tasks)
    with pytest.raises(UserError, match="no response to 16 of 16 requests"):
        lm_eval("routed", arguments, "tiny_text", tiny_tasks)


def test_a_router_that_was_trained_under_another_cost_model_is_served_under_it(
    small_recording: Path, tmp_path: Path
) -> None:
    file, policy = tmp_path / "per_call.py", tmp_path / "knn.safetensors"
    page = (Path(__file__).parents[3] / "docs" / "guides" / "pools.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n# per_call.py\n(.*?)```", page, re.DOTALL)
    assert found is not None
    file.write_text(found[1], encoding="utf-8")
    harness.train("knn", small_recording, cost=str(file), tasks=["records"], out=policy)
    with pytest.raises(UserError, match="the cost model per-call, not paper"):
        routed("knn", "lightweight", recording=small_recording, checkpoint=policy)
    opened = routed("knn", "lightweight", recording=small_recording, checkpoint=policy, cost=str(file))
    query = next(item for item in load_recording(small_recording).tree.items if item.task == "records")
    episodes = rollout(opened.router, opened.tree([(query.query, query.settings)]))
    assert episodes.cost.tolist() == [1.0] and opened.cost_model.unit == "calls"
    asked = {"model": "knn", "messages": [{"role": "user", "content": query.query}]}
    asked |= {"max_tokens": query.settings.max_new_tokens, "stop": list(query.settings.until)}
    client = TestClient(create_app(Dispatcher(opened), "knn"))
    answer = client.post("/v1/chat/completions", json=asked)
    assert (answer.headers["x-cost"], answer.headers["x-cost-unit"]) == ("1", "calls")
    assert "Cost of all hops, in calls." in client.get("/metrics").text
