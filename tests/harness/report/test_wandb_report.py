"""`report --wandb` against a server on this machine that answers as W&B's does: what would reach it is read there."""

from __future__ import annotations

import gzip
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wandb_workspaces")

Call = Callable[..., int]


class Server(ThreadingHTTPServer):
    """W&B's API as far as a report needs it; `views` are the reports saved, `refuses` makes it reject every key."""

    def __init__(self) -> None:
        self.views: list[dict[str, Any]] = []
        self.refuses = False
        super().__init__(("127.0.0.1", 0), Handler)

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            self.views.append(variables)
            of_project = {"id": "p", "name": variables["projectName"], "entityName": variables["entityName"]}
            shown = {key: variables[key] for key in ("name", "displayName", "description", "spec")}
            return {"upsertView": {"view": {"id": "Vmlldzox", "project": of_project, **shown}, "inserted": True}}
        if "ProjectInternalId" in query:
            return {"project": {"id": "p", "internalId": "p"}}
        if "models(" in query:
            project = {"id": "p", "name": "hierrouter-harness", "entityName": "lab"}
            node = {"node": project | {"createdAt": "2026-01-01T00:00:00", "isBenchmark": False, "user": None}}
            return {"models": {"edges": [node], "pageInfo": {"endCursor": None, "hasNextPage": False}}}
        return {"viewer": {"id": "1", "entity": "lab", "username": "someone", "flags": "{}", "teams": {"edges": []}}}


class Handler(BaseHTTPRequestHandler):
    """Answers GraphQL; everything else is not found."""

    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        asked = json.loads(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
        status, content = 401, {"errors": [{"message": "invalid API key"}]}
        if not self.server.refuses:
            status, content = 200, {"data": self.server.answer(asked["query"], asked.get("variables") or {})}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, which wandb is told to use, with a key."""
    import wandb

    serving = Server()
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{serving.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb.teardown()
    yield serving
    wandb.teardown()
    serving.shutdown()
    serving.server_close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small_recording: Path, harness: Call) -> list[Path]:
    """Two tracked runs and one that was not."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            monkeypatch.setenv(name, str(folder))
        for name, router in (("one", "random"), ("two", "cheapest")):
            asked = ("--recording", small_recording, "--router", router, "--out", folder / name)
            assert harness("run", *asked, "--track") == 0
    shutil.copytree(folder / "one", folder / "untracked")
    (folder / "untracked" / "wandb.json").unlink()
    return [folder / name for name in ("one", "two", "untracked")]


def test_the_report_reaches_the_server(runs: list[Path], server: Server, harness: Call, capsys: Any) -> None:
    page = server.server_port
    out = runs[0].parent / "page.html"
    assert harness("report", *runs[:2], "--out", out, "--wandb") == 0
    said = capsys.readouterr().out
    assert f"W&B Report: http://127.0.0.1:{page}/lab/hierrouter-harness/reports/" in said and out.is_file()
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["type"]) == ("lab", "hierrouter-harness", "runs")
    assert view["displayName"] == "random, cheapest: quality and cost"
    blocks = json.loads(view["spec"])["blocks"]
    (grid,) = (block["metadata"] for block in blocks if block["type"] == "panel-grid")
    ids = [json.loads((run / "wandb.json").read_text())["id"] for run in runs[:2]]
    (runset,) = grid["runSets"]
    assert all(name in json.dumps(runset["filters"]) for name in ids)
    panels = grid["panelBankSectionConfig"]["panels"]
    bars = {panel["config"]["chartTitle"]: panel["config"]["metrics"] for panel in panels if "Bar" in panel["viewType"]}
    routers = {name for run in runs[:2] for name in json.loads((run / "summary.json").read_text())["routers"]}
    assert {f"{name}/quality" for name in routers} == set(bars["quality"])
    assert {f"{name}/cost" for name in routers} in [set(found) for found in bars.values()]
    scattered = [panel["config"] for panel in panels if "Scatter" in panel["viewType"]]
    assert [(s["xAxis"], s["yAxis"]) for s in scattered] == [
        (f"summary:{name}/cost", f"summary:{name}/quality") for name in ("random", "cheapest")
    ]
    text = json.dumps(blocks, ensure_ascii=False)
    assert "On " in text and "random attains a quality of" in text and "cheapest attains a quality of" in text
    assert json.dumps((runs[0] / "tables.md").read_text(), ensure_ascii=False)[1:200] in text


@pytest.mark.parametrize(
    ("mode", "refuses", "run", "said"),
    [
        ("online", False, "untracked", "was not tracked"),
        ("offline", False, "one", "unset WANDB_MODE"),
        ("online", True, "one", "wandb took no report"),
    ],
)
def test_what_keeps_the_report_from_w_and_b_is_said_in_one_line(
    runs: list[Path], server: Server, harness: Call, capsys: Any, monkeypatch: pytest.MonkeyPatch,
    mode: str, refuses: bool, run: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("WANDB_MODE", mode)
    server.refuses = refuses
    (folder,) = (path for path in runs if path.name == run)
    out = folder.parent / f"{run}-{mode}-{refuses}.html"
    assert harness("report", folder, "--out", out, "--wandb") == 2
    error = capsys.readouterr().err
    line = next(line for line in error.splitlines() if line.startswith("harness:"))
    assert said in line and out.is_file() == refuses  # what is known before is said before
    assert server.views == []


def test_a_run_made_again_without_tracking_forgets_where_it_was_tracked(
    runs: list[Path], small_recording: Path, harness: Call
) -> None:
    folder = runs[0].parent / "again"
    shutil.copytree(runs[0], folder)
    assert harness("run", "--recording", small_recording, "--router", "random", "--out", folder) == 0
    assert not (folder / "wandb.json").exists()
