"""What `record`, `verify` and `import` take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.runs.config import DEFAULT_HOPS, Sandbox, chosen_sandbox
from pools.types import Split


@dataclass(frozen=True)
class Record:
    """Record every response of every pipeline up to a depth, so that routers can be evaluated exactly.

    Every batch is stored before the next begins: after Ctrl-C or a kill the same command goes on from there.
    """

    pool: str = "lightweight"
    """Pool of candidate models: a name or a YAML file."""
    suite: str | None = None
    """Suite of tasks: a name or a YAML file; by default offline, or the tasks alone that --task names."""
    task: tuple[str, ...] = ()
    """Only these tasks of the suite. Without --suite any tasks: of lm-eval, by name or as YAML files."""
    include_path: Path | None = None
    """Folder of further task files of lm-eval, whose tasks can then be named."""
    max_hops: int = DEFAULT_HOPS
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
    engine: str = "local"
    """Where the models run: local, in this process; ray, in actors of a Ray cluster, as `resources` in the pool file
    says; or FILE.py, with an engine of one's own."""
    ray_address: str | None = None
    """Address of a running Ray cluster, or auto; by default a Ray of this machine."""
    sandbox: Sandbox = field(default_factory=chosen_sandbox)
    """Isolation of programs that models write: auto, the strongest of the others that works
    here, or one of them and no weaker one."""
    out: Path | None = None
    """Folder of the recording; by default one under runs/recordings/. run --recording FOLDER replays it."""
    force: bool = False
    """Replace another recording in the folder of --out."""


@dataclass(frozen=True)
class Verify:
    """Generate a random sample of a recording again with the live models, compare the texts, score again.

    The exit code is 1 if the recording does not hold.
    """

    recording: Path | None = None
    """Folder of the recording; by default the shipped one of the pool and suite."""
    pool: str | None = None
    """Pool that was recorded: a name or a YAML file; by default what the recording was made with, if its
    file is still there."""
    suite: str | None = None
    """Suite that was recorded: a name or a YAML file; by default what the recording was made with, if its
    file is still there."""
    task: tuple[str, ...] = ()
    """Tasks that were recorded without a suite, as record was given them."""
    include_path: Path | None = None
    """Folder of further task files of lm-eval."""
    sample: int = 200
    """How many transitions."""
    seed: int = 1
    """Seed of the sample."""
    at_least: float = 0.99
    """Share of the responses that must be equal; batched floating point can flip a tie."""
    sandbox: Sandbox = field(default_factory=chosen_sandbox)
    """Isolation of programs that models write: auto, the strongest of the others that works
    here, or one of them and no weaker one."""
    weights: Path | None = None
    """Folder that holds model folders named as on the Hugging Face hub."""
    out: Path | None = None
    """JSON file to write the comparison to."""
    force: bool = False
    """Replace the file of --out."""


@dataclass(frozen=True)
class Import:
    """Turn tables of recorded outcomes, one call of one model in each, into a recording of one hop or of cascades.

    csv, parquet: a row per item and model, with columns item, task, prompt, model, score, cost and, if wanted, split,
    kind, latency (seconds of the call) and response. routellm, routerbench: the tables of these projects. json:
    [{question, scores: {MODEL: SCORE}}]. traffic: a logged request and response in each line (docs/guides/traffic.md).
    In these, too, split, kind and task are read.
    """

    files: tuple[Path, ...]
    """CSV, Parquet or JSON files; of several, each is of one split."""
    out: Path | None = None
    """Folder of the recording, which run --recording FOLDER replays; by default one under runs/recordings/."""
    format: Literal["auto", "csv", "parquet", "routellm", "routerbench", "json", "traffic"] = "auto"
    """What the columns are; by default their names tell."""
    splits: tuple[Split, ...] = ()
    """The split of each file; by default what the names of several files say."""
    name: str | None = None
    """Name of the pool and the suite; by default what the files' names begin with alike."""
    quality_only: bool = False
    """The table has no costs, and no figure of cost shall be shown."""
    cost_unit: str | None = None
    """Unit of the costs; by default what a column cost_unit says, or US$."""
    prices: tuple[str, ...] = ()
    """For routellm, which holds no costs, and for logged calls that give none: MODEL=INPUT,OUTPUT in US$ per million
    tokens."""
    tokenizer: str | None = None
    """For routellm: counts the tokens that the prices are of; a folder, or a name on the hub."""
    hops: int = 1
    """With more than one: cascades of that many hops, of models that do not read earlier answers. Each answer is then
    known in advance, and so is every pipeline; as many hops as fit into memory."""
    answers: str = "auto"
    """What a response answers, to compare answers by: letter, number, text, code, word (the last one), or a regular
    expression (its last match, or the first group of that); by default what most responses look like."""
    drop_incomplete: bool = False
    """Leave out items that lack an outcome of some model, instead of refusing the table."""
    force: bool = False
    """Replace the recording in the folder of --out."""
