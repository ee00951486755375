"""Routers of other projects, from their own repositories, trained on the same embeddings as ours.

`real_tables.py --peer NAME=FOLDER` measures them; nothing of them is copied here. What a router asks for at import and
does not need for training (a key of OpenAI, packages of other routers) is replaced by an empty module.

- `routellm` (git clone https://github.com/lm-sys/RouteLLM): the class that trains its matrix factorisation, with the
  settings of its script: pairs of a model that is right and one that is wrong; the chance that a model wins over the
  strongest one is weighed against costs.
- `llmrouter` (git clone https://github.com/ulab-uiuc/LLMRouter): its kNN, MLP and SVM, with the settings of its
  configuration files: classifiers of the best model of a query. Of equally good models its label is the one that the
  table lists first, whatever it costs; costs do not count.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.types import Context
from routers._threads import one_library_thread, one_thread
from routers.encoders.base import ContextEncoder, build_encoder
from routers.router import Router, RouterRequest, RoutingStates

FloatArray = NDArray[np.float64]
DIALS = 41
"""How many thresholds a peer's curve is measured at."""


@dataclass(frozen=True, eq=False)
class ScoredRouter:
    """Calls the model with the best `score - dial * mean cost`, then stops.

    scores: `[M]` of each query. cost: `[M]` mean cost on train items.
    """

    scores: Mapping[str, FloatArray]
    cost: FloatArray
    dial: float = 0.0

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` the best model at hop 0, STOP from then on."""
        value = np.stack([self.scores[context.query] for context in states.contexts]) - self.dial * self.cost
        return np.where(states.hop == 0, value.argmax(axis=1), len(self.cost))


@dataclass(frozen=True, eq=False)
class Problem:
    """What a peer learns from and is asked.

    vectors: `[n, d]` of the queries. score: `[t, M]` of the first `t` of them, those to learn from.
    """

    queries: Sequence[str]
    vectors: NDArray[np.float32]
    score: FloatArray
    seed: int


@dataclass(frozen=True)
class Peer:
    """A router of another project. scores: `[n, M]` of all queries, trained by the code in the folder."""

    project: str
    scores: Callable[[Path, Problem], FloatArray]
    draws: bool = False
    weighs: bool = False
    """Whether its scores can be weighed against costs."""


def peer_routers(
    name: str, folder: Path, request: RouterRequest, encoder: str, cost_weights: Sequence[float]
) -> list[tuple[float, Router]]:
    """The peer with cost weights: at `DIALS` thresholds, which have none (NaN), then as is best on validation items.

    A peer that does not weigh costs is one router, at cost weight 0. It has nothing to choose on validation items, so
    it learns from these as well.
    """
    peer = PEERS[name]
    train, validation, evaluation = request.train, request.validation, request.evaluation
    assert train is not None and validation is not None and evaluation is not None
    learnt = [train] if peer.weighs else [train, validation]
    queries = [item.query for tree in (train, validation, evaluation) for item in tree.items]
    contexts = [Context(query) for query in queries]
    embed = ContextEncoder(
        build_encoder(encoder, contexts[: len(train.items)], request.seed, request.weights), ("query",)
    )
    score = np.concatenate([tree.score[:, tree.level(1)] for tree in learnt]).astype(np.float64)
    with one_library_thread(), one_thread(), contextlib.redirect_stdout(io.StringIO()):
        found = peer.scores(folder, Problem(queries, embed(contexts), score, request.seed))
    cost = train.cost[:, train.level(1)].mean(axis=0)
    router = ScoredRouter(dict(zip(queries, found, strict=True)), cost)
    if not peer.weighs:
        return [(0.0, router)]
    dials = _dials(found[: len(train.items)], cost)
    chosen = [(weight, _best_dial(router, dials, validation, weight)) for weight in cost_weights]
    return [
        (dial[0], replace(router, dial=dial[1])) for dial in [*((np.nan, dial) for dial in dials.tolist()), *chosen]
    ]


def _dials(scores: FloatArray, cost: FloatArray) -> FloatArray:
    """`[DIALS]` from only the best to only the cheapest model: quantiles of where one overtakes another."""
    more, less = np.nonzero(cost[:, None] > cost[None, :])
    gains = (scores[:, more] - scores[:, less]) / (cost[more] - cost[less])
    quantiles = np.quantile(gains[gains > 0], np.linspace(0, 1, DIALS - 1)) if (gains > 0).any() else np.ones(DIALS - 1)
    return np.array([0.0, *quantiles.tolist()]) * (1 + 1e-9)


def _best_dial(router: ScoredRouter, dials: FloatArray, tree: Tree, cost_weight: float) -> float:
    first = tree.level(1)
    value = tree.score[:, first] - cost_weight * tree.cost[:, first]
    scores, rows = np.stack([router.scores[item.query] for item in tree.items]), np.arange(len(tree.items))
    means = [value[rows, (scores - dial * router.cost).argmax(axis=1)].mean() for dial in dials]
    return float(dials[int(np.argmax(means))])


# --- RouteLLM ---------------------------------------------------------------------------------------------------------


def _matrix_factorisation(folder: Path, problem: Problem) -> FloatArray:
    """RouteLLM's `MFModel_Train`, by its `train_loops`, with the settings of its script; on the CPU."""
    import torch

    empty = {"routellm.routers.similarity_weighted.utils": {"OPENAI_CLIENT": None}}
    with _importable(folder, empty), torch.random.fork_rng():
        theirs = importlib.import_module("routellm.routers.matrix_factorization.train_matrix_factorization")
        torch.manual_seed(problem.seed)
        # Its data set knows models by names of its own list: any will do.
        names = list(theirs.MODEL_IDS)[: problem.score.shape[1]]
        pairs = [
            {"model_a": names[right], "model_b": names[wrong], "idx": row, "winner": "model_a"}
            for row, scores in enumerate(problem.score)
            for right, wrong in zip(*np.nonzero(scores[:, None] > scores[None, :]), strict=True)
        ]
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
            np.save(f"{scratch}/vectors.npy", problem.vectors)
            model = theirs.MFModel_Train(
                dim=128, num_models=len(theirs.MODEL_IDS), num_prompts=len(problem.vectors),
                text_dim=problem.vectors.shape[1], npy_path=f"{scratch}/vectors.npy",
            )  # fmt: skip
            data = theirs.PairwiseDataset(pairs)
            # What it is evaluated on while it learns decides nothing; it cannot do without.
            theirs.train_loops(
                model, data.get_dataloaders(64), theirs.PairwiseDataset(pairs[:64]).get_dataloaders(64, shuffle=False),
                lr=3e-4, weight_decay=1e-5, alpha=0.1, num_epochs=100, device="cpu",
            )  # fmt: skip
        strongest = int(problem.score.mean(axis=0).argmax())
        rows = torch.arange(len(problem.vectors))
        with torch.no_grad():
            wins = [
                torch.sigmoid(model(torch.full_like(rows, m), torch.full_like(rows, strongest), rows, test=True))
                for m in range(len(names))
            ]
    return np.stack([win.numpy() for win in wins], axis=1).astype(np.float64)


# --- LLMRouter --------------------------------------------------------------------------------------------------------


def _classifier(module: str, router: str, trainer: str, model: str) -> Callable[[Path, Problem], FloatArray]:
    """A router of LLMRouter that is a scikit-learn classifier: 1 for the model that it chooses, else 0."""

    def scores(folder: Path, problem: Problem) -> FloatArray:
        import torch
        import yaml

        config = folder / "configs" / "model_config_train" / f"{module}.yaml"
        with (
            _importable(folder, {"llmrouter.models": {}, "llmrouter.utils": {}}),
            tempfile.TemporaryDirectory() as scratch,
        ):
            utils = sys.modules["llmrouter.utils"]
            for part in ("data_loader", "model_loader"):
                vars(utils).update(vars(importlib.import_module(f"llmrouter.utils.{part}")))
            vars(utils)["get_longformer_embedding"] = None
            theirs = importlib.import_module(f"llmrouter.models.{module}.router")
            training = importlib.import_module(f"llmrouter.models.{module}.trainer")
            rows = [
                {"query": problem.queries[n], "model_name": str(m), "performance": float(score), "embedding_id": n}
                for n, of_query in enumerate(problem.score)
                for m, score in enumerate(of_query)
            ]
            data = Path(scratch) / "routing.jsonl"
            data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
            torch.save(list(torch.from_numpy(problem.vectors)), f"{scratch}/vectors.pt")
            settings = yaml.safe_load(config.read_text(encoding="utf-8"))
            settings["data_path"] = {"routing_data_train": str(data), "query_embedding_data": f"{scratch}/vectors.pt"}
            settings["model_path"] = {"ini_model_path": "", "save_model_path": f"{scratch}/model.pkl"}
            (Path(scratch) / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
            made = getattr(theirs, router)(f"{scratch}/config.yaml")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of scikit-learn, on options that it will not have for ever
                getattr(training, trainer)(made).train()
            chosen = getattr(made, model).predict(problem.vectors)
        return np.eye(problem.score.shape[1])[chosen.astype(np.int64)]

    return scores


@contextlib.contextmanager
def _importable(folder: Path, replaced: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Import from a folder, with these modules replaced by ones that hold no more than this; a package stays one."""
    top = {name.partition(".")[0] for name in replaced}
    for name, content in replaced.items():
        module = ModuleType(name)
        module.__path__ = [str(folder.joinpath(*name.split(".")))]
        vars(module).update(content)
        sys.modules[name] = module
    sys.path.insert(0, str(folder))
    try:
        yield
    except ImportError as error:
        raise UserError(f"{folder} cannot be imported from ({error}); expected the repository's folder") from None
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] in top]:
            del sys.modules[name]


PEERS: Mapping[str, Peer] = {
    "routellm-mf": Peer("routellm", _matrix_factorisation, draws=True, weighs=True),
    "llmrouter-knn": Peer("llmrouter", _classifier("knnrouter", "KNNRouter", "KNNRouterTrainer", "knn_model")),
    "llmrouter-mlp": Peer("llmrouter", _classifier("mlprouter", "MLPRouter", "MLPTrainer", "mlp_model")),
    "llmrouter-svm": Peer("llmrouter", _classifier("svmrouter", "SVMRouter", "SVMRouterTrainer", "svm_model")),
}
