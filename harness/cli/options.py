"""What each command of the command line takes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

Sandbox = Literal["auto", "bwrap", "namespaces", "rlimits"]


def _sandbox() -> Any:
    return os.environ.get("HARNESS_SANDBOX", "auto")


@dataclass(frozen=True)
class Run:
    """Evaluate routers on a suite: quality and cost, per task and overall, with baselines and the exact optimum.

    By default this replays the shipped recording, so it needs neither a model nor a network. A router that learns is
    loaded from what ships for the seed, or from --checkpoint; where neither fits, it learns from the train items first.
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
    pool: str | None = None
    """Pool of candidate models: a name (python -m harness list pools) or a YAML file; by default lightweight."""
    suite: str | None = None
    """Suite of tasks: a name (python -m harness list suites) or a YAML file; by default offline."""
    task: tuple[str, ...] = ()
    """Only these tasks of the suite."""
    recording: Path | None = None
    """Folder of the recording to replay; by default the shipped one of the pool and suite."""
    live: bool = False
    """Ask the models themselves instead of a recording."""
    weights: Path | None = None
    """Folder that holds model folders named as on the Hugging Face hub; for --live and the sentence encoder."""
    store: Path = Path("runs/stores/live.sqlite")
    """Transition store that keeps every response of --live, so that nothing is generated twice."""
    sandbox: Sandbox = field(default_factory=_sandbox)
    """Isolation of programs that models write, for --live: auto, the strongest of the others that works
    here, or one of them and no weaker one."""
    limit: int | None = None
    """Only the first so many documents of each task, before they are split."""
    split: Literal["train", "validation", "test", "all"] = "test"
    """Which items to evaluate on; routers are trained on train items whatever this says."""
    max_hops: int | None = None
    """Horizon L; by default the recording's, 2 with --live."""
    allow_stop: bool = True
    """Whether a router may answer before the last hop."""
    preset: Literal["default", "paper"] = "default"
    """paper: HierRouter as the paper has it: no STOP, so always L hops, and a state of context, hop and cost alone."""
    cost: Literal["paper", "dollars"] = "paper"
    """Cost model: the paper's base_rate * (tokens_in + tokens_out), or the pool's prices."""
    cost_weight: str = "0.1"
    """The lambda of the reward: quality given up for one unit of cost. Several, as in 0,0.1,1, give a table of the
    frontier too; one HierRouter serves them all."""
    strong: str | None = None
    """With several cost weights and one hop: the strong model of APGR and CPT. A pool of two needs none named: it
    is the better one."""
    weak: str | None = None
    """The weak model that goes with --strong."""
    encoder: str = "hashing"
    """Encoder of the routers that learn in this run: hashing, or sentence[:PATH]."""
    checkpoint: Path | None = None
    """A trained router, as python -m harness train writes it."""
    retrain: bool = False
    """Train a router even where one ships that was trained on the same."""
    seed: int = 1
    """Seed of training, sampling and the bootstrap."""
    out: Path | None = None
    """Folder to write to; by default a new one under runs/."""
    track: bool = False
    """Log figures, tables and the run's files to wandb (project hierrouter-harness); WANDB_MODE=offline works."""


@dataclass(frozen=True)
class Train:
    """Train a router on the train items, choose on the validation items, and write its checkpoint.

    Every hyper-parameter of HierRouter is also a flag of python -m routers.ppo_hierrouter, which trains on a recording
    by itself.
    """

    router: str = "hierrouter"
    """The router: one that learns, by name or as a file of your own."""
    router_args: str = ""
    """Its options, name=value,name=value; python -m harness list routers ROUTER lists them."""
    pool: str | None = None
    """Pool of candidate models: a name or a YAML file; by default lightweight."""
    suite: str | None = None
    """Suite of tasks: a name or a YAML file; by default offline."""
    task: tuple[str, ...] = ()
    """Only these tasks of the suite."""
    recording: Path | None = None
    """Folder of the recording to train on; by default the shipped one of the pool and suite."""
    live: bool = False
    """Ask the models themselves instead of a recording."""
    weights: Path | None = None
    """Folder that holds model folders named as on the Hugging Face hub; for --live and the sentence encoder."""
    store: Path = Path("runs/stores/live.sqlite")
    """Transition store that keeps every response of --live."""
    sandbox: Sandbox = field(default_factory=_sandbox)
    """Isolation of programs that models write, for --live: auto, the strongest of the others that works
    here, or one of them and no weaker one."""
    limit: int | None = None
    """Only the first so many documents of each task, before they are split."""
    max_hops: int | None = None
    """Horizon L; by default the recording's, 2 with --live."""
    allow_stop: bool = True
    """Whether the policy may answer before the last hop."""
    preset: Literal["default", "paper"] = "default"
    """paper: HierRouter as the paper has it: no STOP, so always L hops, and a state of context, hop and cost alone."""
    cost: Literal["paper", "dollars"] = "paper"
    """Cost model."""
    cost_weight: float = 0.1
    """The lambda of the reward."""
    cost_weights: tuple[float, ...] = ()
    """Lambdas to draw from, one for each episode, and to show to the policy: one training for a whole frontier."""
    encoder: str = "hashing"
    """hashing, or sentence[:PATH]."""
    total_timesteps: int | None = None
    """Environment steps; by default the trainer's own."""
    seed: int = 1
    """Seed of everything that is drawn."""
    out: Path | None = None
    """Checkpoint to write; by default runs/ROUTER.safetensors."""
    resume: bool = False
    """Go on from the checkpoint where an earlier run was stopped."""
    track: bool = False
    """Log training to wandb; WANDB_MODE=offline works."""


@dataclass(frozen=True)
class Record:
    """Record every response of every pipeline up to a depth, so that routers can be evaluated exactly.

    Every batch is stored before the next begins: after Ctrl-C or a kill the same command goes on from there.
    """

    pool: str = "lightweight"
    """Pool of candidate models: a name or a YAML file."""
    suite: str = "offline"
    """Suite of tasks: a name or a YAML file."""
    task: tuple[str, ...] = ()
    """Only these tasks of the suite."""
    max_hops: int = 2
    """Depth of the tree: M + M^2 + ... + M^max_hops responses per item for M models."""
    limit: int | None = None
    """Only the first so many documents of each task, before they are split."""
    weights: Path | None = None
    """Folder that holds model folders named as on the Hugging Face hub."""
    store: Path | None = None
    """Transition store to resume from; by default one under runs/stores/ named after the recording."""
    reuse: Path | None = None
    """Folder of an earlier recording, or an exported store (.parquet): what the same models answered there is not
    generated again."""
    resident: int | None = None
    """How many models stay in memory at once; by default all of the pool's."""
    engine: Literal["local", "ray"] = "local"
    """Where the models run: in this process, or in actors of a Ray cluster, as `resources` in the pool file says."""
    ray_address: str | None = None
    """Address of a running Ray cluster, or auto; by default a Ray of this machine."""
    sandbox: Sandbox = field(default_factory=_sandbox)
    """Isolation of programs that models write: auto, the strongest of the others that works
    here, or one of them and no weaker one."""
    out: Path | None = None
    """Folder of the recording; by default one under runs/recordings/. run --recording FOLDER replays it."""


@dataclass(frozen=True)
class Verify:
    """Generate a random sample of a recording again with the live models, compare the texts, score again.

    The exit code is 1 where the recording does not hold.
    """

    recording: Path | None = None
    """Folder of the recording; by default the shipped one of the pool and suite."""
    pool: str | None = None
    """Pool that was recorded: a name or a YAML file; by default the one that the recording names."""
    suite: str | None = None
    """Suite that was recorded: a name or a YAML file; by default the one that the recording names."""
    sample: int = 200
    """How many transitions."""
    seed: int = 1
    """Seed of the sample."""
    at_least: float = 0.99
    """Share of the responses that must be equal; batched floating point can flip a tie."""
    sandbox: Sandbox = field(default_factory=_sandbox)
    """Isolation of programs that models write: auto, the strongest of the others that works
    here, or one of them and no weaker one."""
    weights: Path | None = None
    """Folder that holds model folders named as on the Hugging Face hub."""
    out: Path | None = None
    """JSON file to write the comparison to."""


@dataclass(frozen=True)
class Import:
    """Turn a table of recorded outcomes, one call of one model in each, into a recording of one hop.

    csv, parquet: a row per item and model, with columns item, task, prompt, model, score, cost and, where wanted, split
    and response. routellm, routerbench: the tables of these projects.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """CSV or Parquet file."""
    out: Path
    """Folder of the recording; run --recording FOLDER evaluates routers on it."""
    format: Literal["csv", "parquet", "routellm", "routerbench"] = "csv"
    """What the columns are."""
    name: str | None = None
    """Name of the pool and the suite; by default the file's."""
    quality_only: bool = False
    """The table has no costs, and no figure of cost shall be shown."""
    cost_unit: str = "US$"
    """Unit of the column cost."""
    prices: tuple[str, ...] = ()
    """For routellm, which holds no costs: MODEL=INPUT,OUTPUT in US$ per million tokens."""
    tokenizer: str | None = None
    """For routellm: counts the tokens that the prices are of; a folder, or a name on the hub."""
    drop_incomplete: bool = False
    """Leave out items that lack an outcome of some model, instead of refusing the table."""
    force: bool = False
    """Replace a recording that is in the folder of --out."""


@dataclass(frozen=True)
class Compare:
    """Compare finished runs item by item: quality and cost with paired 95% intervals, overall and per task."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders that run wrote. Each is compared with the first; with --against, the routers inside each."""
    router: tuple[str, ...] = ()
    """Only these routers; by default all that both runs have."""
    against: str | None = None
    """Compare every router with this one of the same run."""
    out: Path | None = None
    """File to write to: Markdown (.md), CSV (.csv) or JSON (.json)."""
    seed: int = 1
    """Seed of the bootstrap and of the sign-flip test."""


@dataclass(frozen=True)
class Check:
    """Fail where routers have become worse than a baseline: quality fell or cost rose, overall or on a task.

    What to run is in the baseline. The exit code is 1 where a paired 95% interval excludes that nothing is worse, and 2
    where there is nothing to compare. With --update the baseline is made, or made again.
    """

    baseline: Path | None = None
    """Baseline file; by default the shipped one, of pool lightweight and suite offline."""
    run: Path | None = None
    """Check this finished run instead of running."""
    junit: Path | None = None
    """Also write a report as JUnit XML."""
    tolerance_quality: float = 0.0
    """Fall in quality that is tolerated, in [0, 1]."""
    tolerance_cost: float = 0.0
    """Rise in cost that is tolerated, as a share of the baseline's: 0.05 is 5%."""
    update: bool = False
    """Run and write the baseline. The flags below say what it runs; what is not given stays as it is in the file."""
    router_args: tuple[str, ...] = ()
    """With --update: options of the routers, as run takes them."""
    router: tuple[str, ...] = ()
    """With --update: the routers. The defaults of a new file are those of run, without run's own baselines."""
    pool: str | None = None
    """With --update: the pool."""
    suite: str | None = None
    """With --update: the suite."""
    task: tuple[str, ...] = ()
    """With --update: only these tasks."""
    recording: Path | None = None
    """The recording to replay, in place of the baseline's; with --update it is kept."""
    limit: int | None = None
    """With --update: only the first so many documents of each task."""
    split: Literal["train", "validation", "test", "all"] | None = None
    """With --update: which items."""
    max_hops: int | None = None
    """With --update: horizon L."""
    allow_stop: bool | None = None
    """With --update: whether a router may answer before the last hop."""
    preset: Literal["default", "paper"] | None = None
    """With --update: paper, HierRouter as the paper has it."""
    cost: Literal["paper", "dollars"] | None = None
    """With --update: the cost model."""
    cost_weight: str | None = None
    """With --update: the lambda, or several as run takes them; figures are checked at the first."""
    encoder: str | None = None
    """With --update: the encoder of the routers that learn."""
    checkpoint: Path | None = None
    """A trained router, in place of the baseline's; with --update it is kept."""
    seed: int | None = None
    """With --update: the seed."""
    weights: Path | None = None
    """Folder of model weights, for the sentence encoder."""


@dataclass(frozen=True)
class Report:
    """Write a page on one or several runs: the result in words, tables, figures and example items.

    It is one HTML file that needs no network; a folder beside it holds the figures as PNG and SVG.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders that python -m harness run wrote."""
    out: Path | None = None
    """HTML file to write; by default report.html in the first of the folders."""
    wandb: bool = False
    """Save a W&B Report that compares the runs, too; they have to be runs made with --track."""


@dataclass(frozen=True)
class Serve:
    """Serve a router as a model of the OpenAI chat API: /v1/chat/completions, /v1/models, /metrics, /health.

    Needs the extra `serve`. A bearer key is read from the variable HARNESS_API_KEY or from --api-key-file.
    """

    router: str = "hierrouter"
    """The router, by name; one that learns is what ships for --seed, or --checkpoint."""
    pool: str = "lightweight"
    """Pool of candidate models: a name or a YAML file."""
    weights: Path | None = None
    """Folder that holds model folders named as on the Hugging Face hub."""
    recording: Path | None = None
    """Answer from this recording instead of the models: only its items, for tests of clients and of load."""
    checkpoint: Path | None = None
    """Checkpoint of a trained router."""
    seed: int = 1
    """Seed of the shipped policy, and of what a stochastic router draws."""
    cost_weight: float = 0.1
    """The lambda that the router weighs costs with."""
    max_hops: int | None = None
    """Horizon L; by default the checkpoint's, else 2."""
    store: Path | None = None
    """Transition store that keeps every query and response; without one nothing is kept."""
    name: str | None = None
    """What the model is called; by default as the router."""
    host: str = "127.0.0.1"
    """Address to listen at: by default only for this machine."""
    port: int = 8000
    """Port to listen at; 0: any that is free, it is printed."""
    api_key_file: Path | None = None
    """File that holds the bearer key which requests have to bring."""
    batch_size: int = 64
    """At most so many queries are answered together."""
    waiting: int = 256
    """So many queries may wait; one more is refused with status 503."""
    timeout: float = 300.0
    """Seconds after which a query that is not answered ends with status 504."""
    max_tokens: int = 1024
    """Most tokens of a response that a request may ask for."""
    max_body_bytes: int = 1_000_000
    """Longest body of a request."""


@dataclass(frozen=True)
class List:
    """List what can be named on the command line."""

    what: Annotated[Literal["routers", "models", "tasks", "suites", "pools"], tyro.conf.Positional]
    """What to list."""
    name: Annotated[str | None, tyro.conf.Positional] = None
    """With routers: one of them, whose options are listed."""
    pool: str = "lightweight"
    """The pool whose models are listed."""
