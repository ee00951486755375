"""What `run` and `train` take."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pools.cost import COST_WEIGHT

Sandbox = Literal["auto", "bwrap", "namespaces", "rlimits"]
LIVE_STORE = Path("runs/stores/live.sqlite")
DEFAULT_HOPS = 3
"""Of live models, if nobody says another: those of the recording that ships."""


def chosen_sandbox() -> Any:
    """The isolation that the environment asks for, else auto."""
    return os.environ.get("HARNESS_SANDBOX", "auto")


TRACKING = ("track", "wandb_project", "wandb_entity", "wandb_group", "wandb_name", "wandb_tags")
"""The options that say whether and where to log."""


@dataclass(frozen=True)
class Problem:
    """What is asked of whom, and what it costs: the same for training and evaluation."""

    pool: str | None = None
    """Pool of candidate models: a name (python -m harness list pools) or a YAML file; by default lightweight."""
    suite: str | None = None
    """Suite of tasks: a name (python -m harness list suites) or a YAML file; by default offline."""
    task: tuple[str, ...] = ()
    """Only these tasks of the suite or the recording. With --live and no --suite any tasks: of lm-eval, by name or as
    YAML files."""
    include_path: Path | None = None
    """Folder of further task files of lm-eval, whose tasks can then be named."""
    recording: Path | None = None
    """Folder of the recording; by default the shipped one of the pool and suite."""
    live: bool = False
    """Ask the models themselves instead of a recording."""
    weights: Path | None = None
    """Folder that holds model folders named as on the Hugging Face hub; for --live and the sentence encoder."""
    store: Path = LIVE_STORE
    """Transition store that keeps every response of --live, so that nothing is generated twice."""
    sandbox: Sandbox = field(default_factory=chosen_sandbox)
    """Isolation of programs that models write, for --live: auto, the strongest of the others that works
    here, or one of them and no weaker one."""
    limit: int | None = None
    """Only the first so many documents of each task, before they are split."""
    max_hops: int | None = None
    """Horizon L; by default the recording's, 3 with --live."""
    allow_stop: bool = True
    """Routers may answer before the last hop; with --no-allow-stop every pipeline has all hops."""
    preset: Literal["default", "paper"] = "default"
    """paper: HierRouter as the paper has it: no STOP, so always L hops, and a state of context, hop and cost alone."""
    cost: str = "paper"
    """Cost model: paper, base_rate * (tokens_in + tokens_out); dollars, the pool's prices; or FILE.py with your own."""
    encoder: str = "hashing"
    """Encoder of the routers that learn: hashing, surface, sentence[:PATH], two as in hashing+surface, or FILE.py."""
    seed: int = 1
    """Seed of everything that is drawn: training, sampling and the bootstrap."""
    track: bool = False
    """Log to wandb; WANDB_MODE=offline works."""
    wandb_project: str | None = None
    """With --track: the project; by default hierrouter-harness."""
    wandb_entity: str | None = None
    """With --track: the team; by default wandb's own."""
    wandb_group: str | None = None
    """With --track: the group; by default the routers and the suite."""
    wandb_name: str | None = None
    """With --track: the name; by default the routers and the recording."""
    wandb_tags: tuple[str, ...] = ()
    """With --track: tags."""


@dataclass(frozen=True)
class Run(Problem):
    """Evaluate routers on a suite: quality and cost, per task and overall, with baselines and the exact optimum.

    By default this replays the shipped recording, so it needs neither a model nor a network. A router that learns is
    loaded from what ships for the seed, or from --checkpoint; if neither fits, it learns from the train items first.
    """

    router: tuple[str, ...] = ("hierrouter",)
    """Routers to evaluate, by name (python -m harness list routers) or as a file of your own: --router hierrouter
    single:MODEL my_router.py."""
    router_args: tuple[str, ...] = ()
    """Options of routers that learn: name=value,name=value, with several routers ROUTER:name=value,name=value. They are
    listed by python -m harness list routers ROUTER."""
    baselines: Literal["auto", "yes", "no"] = "auto"
    """Also each single model, random and, on a recording, the best pipelines and the exact optimum; auto: not with
    --live."""
    train_on: Path | None = None
    """Recording whose train and validation items routers learn from, of models of the same names; by default that of
    the run. With --live, what lets them learn."""
    seeds: int = 1
    """With how many seeds, from --seed on, every router that learns is trained: a row is then the mean over them, and
    says how far they lie apart."""
    split: Literal["train", "validation", "test", "all"] = "test"
    """Which items to evaluate on; routers are trained on train items whatever this says."""
    cost_weight: tuple[float, ...] = (COST_WEIGHT,)
    """The lambda of the reward: quality given up for one unit of cost. Several, as in 0 0.1 1, give a table of the
    frontier too; one HierRouter serves them all."""
    latency_weight: float = 0.0
    """Quality given up for a second that a user waits, beside the cost weight; of recordings that hold latency."""
    frontier: bool = False
    """A table of the frontier with a single cost weight, too: AIQ, cost at parity, APGR and CPT, for which every router
    is swept over as many cost weights as its curve takes."""
    strong: str | None = None
    """With a frontier, of models that do not read each other's answers: the strong one of APGR and CPT. A pool of two
    needs none named: it is the better one."""
    weak: str | None = None
    """The weak model that goes with --strong."""
    budget: str | None = None
    """Set every router, on validation items, to the best quality for a mean cost per item of at most this, as in
    cost=0.02, in the unit of the costs, or for mean seconds, as in latency=2. Beside them the exact optimum within."""
    cap: str | None = None
    """The same with a cap on the cost, or the seconds, of each item, as in cost=0.05 or latency=5: a call that could
    exceed it is not made."""
    no_worse_than: str | None = None
    """A model and a margin, as in MODEL=0.01: choose for every router, on validation items, its cheapest cost weight at
    which its quality is, with --confidence, not below the model's by more."""
    confidence: float = 0.95
    """Of --no-worse-than."""
    checkpoint: Path | None = None
    """A trained router, as python -m harness train writes it."""
    retrain: bool = False
    """Train a router even if one ships that was trained on the same."""
    out: Path | None = None
    """Folder to write to; by default a new one under runs/."""
    force: bool = False
    """Replace another run in the folder of --out."""


@dataclass(frozen=True)
class Train(Problem):
    """Train a router on the train items, choose on the validation items, and write its checkpoint.

    Every hyper-parameter of HierRouter is also a flag of python -m routers.ppo_hierrouter, which trains on a recording
    by itself.
    """

    router: str = "hierrouter"
    """The router: one that learns, by name or as a file of your own."""
    router_args: str = ""
    """Its options, name=value,name=value; python -m harness list routers ROUTER lists them."""
    cost_weight: float = COST_WEIGHT
    """The lambda of the reward."""
    cost_weights: tuple[float, ...] = ()
    """Lambdas to draw from, one for each episode, and to show to the policy: one training for a whole frontier."""
    latency_weight: float = 0.0
    """Quality given up for a second that a user waits; of recordings that hold latency, with one cost weight."""
    total_timesteps: int | None = None
    """Environment steps of a training with sampled advantages; with exact ones total_trees is (list routers ROUTER)."""
    out: Path | None = None
    """Checkpoint to write; by default runs/ROUTER.safetensors."""
    force: bool = False
    """Replace another training's checkpoint of --out."""
    resume: bool = False
    """Go on from the checkpoint where an earlier run was stopped."""
