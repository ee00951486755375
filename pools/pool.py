"""A pool: the candidate models, declared in one YAML file."""

from __future__ import annotations

from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field
from pydantic.dataclasses import dataclass

from pools.cost import COST_MODELS, MAX_RATE, CostModel, recorded_cost
from pools.errors import UserError, shown
from pools.names import check_distinct, check_name, did_you_mean
from pools.schema import WRITTEN, Schema, from_plain
from pools.secrets import identity, masked
from pools.template import CONCATENATION, check_template
from pools.types import content_hash
from pools.weights import Weights, alone, find_weights, folder_hash
from pools.yaml_file import read_yaml

FOLDER = Path(__file__).parent
# Arguments of lm-eval models that say where to run, not what is answered.
_PLACEMENT = {
    *("device", "batch_size", "max_batch_size", "num_concurrent", "max_retries", "timeout", "parallelize"),
    *("gpu_memory_utilization", "tensor_parallel_size", "data_parallel_size"),  # vLLM's
}

Rate = Annotated[float, Field(ge=0, le=MAX_RATE)]
Amount = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=WRITTEN)
class Price:
    """US$ per million tokens read and written, with where and when they were read."""

    input: Rate
    output: Rate
    source: str


@dataclass(frozen=True, config=WRITTEN)
class Resources:
    """What a model needs on a cluster.

    replicas: how many actors load it. num_cpus, num_gpus, custom: of each, as Ray counts them; `custom` by name.
    """

    replicas: Annotated[int, Field(ge=1)] = 1
    num_cpus: Amount = 1.0
    num_gpus: Amount = 0.0
    custom: dict[str, Amount] = field(default_factory=dict)


@dataclass(frozen=True, config=WRITTEN)
class CandidateModel:
    """One model of a pool.

    lm_eval: any model type of lm-eval (`hf`, `vllm`, `local-chat-completions`, ...). arguments: its arguments.
    base_rate: the paper's cost per token. price: dollars, if it has one.
    template: Jinja text over `query` and `responses`; by default the paper's concatenation.
    chat_template: whether the rendered text is wrapped as a user's message by the tokenizer's chat template.
    batch_size: requests per call. patience: seconds for which a server that does not answer is asked again.
    weights: where they are; API models have none. resources: what it needs on a cluster (`record --engine ray`).
    """

    name: str
    lm_eval: str
    base_rate: Rate
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    template: str = CONCATENATION
    chat_template: bool = False
    batch_size: Annotated[int, Field(ge=1)] = 16
    patience: Amount = 60.0
    price: Price | None = None
    description: str = ""
    resources: Resources = Resources()

    @property
    def answering_arguments(self) -> dict[str, Any]:
        """The arguments that decide what is answered: without those that say where to run, and without secrets."""
        return cast(dict[str, Any], identity({k: v for k, v in self.arguments.items() if k not in _PLACEMENT}))

    @property
    def concurrent(self) -> int | None:
        """How many requests a server is asked at a time; None if the pool file does not say."""
        concurrent = self.arguments.get("num_concurrent")
        return concurrent if type(concurrent) is int else None

    @property
    def at_once(self) -> int:
        """Requests that are handed over together: a batch, and at least as many as a server is asked at a time."""
        return max(self.batch_size, self.concurrent or 1)


class ServerArguments(Schema):
    """Arguments of a model behind a server with which every request would fail if they were something else."""

    header: dict[str, Annotated[str, Field(pattern=r"^[^\r\n]*$")]] | None = None
    base_url: Annotated[str, Field(pattern="^https?://.")] | None = None
    num_concurrent: Annotated[int, Field(ge=1)] = 1
    max_retries: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=WRITTEN)
class Pool:
    """The candidate models, in the order of their action indices.

    cost_unit: the unit of `base_rate * tokens`. rates: where the base rates are from and of what date.
    billed: the cost of every response was recorded with it, in `cost_unit`; without a unit there are no costs at all.
    folder: what relative weight paths are relative to.
    """

    name: str
    models: Annotated[tuple[CandidateModel, ...], Field(min_length=1)]
    cost_unit: str
    rates: str
    description: str = ""
    billed: bool = False
    folder: Path = field(default=FOLDER, compare=False)

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names, in the order of the action indices."""
        return tuple(model.name for model in self.models)

    def cost_model(self, name: str) -> CostModel:
        """The cost model of this name. Raises UserError for another name, and if a model has no price."""
        known, make, argument = COST_MODELS.find(name)
        if argument:
            raise UserError(f"cost model {known} takes no argument, got {shown(argument)}; name it alone")
        return recorded_cost(self.cost_unit, self.rates) if self.billed else replace(make(self), name=known)

    def fingerprint(self, model: CandidateModel, weights_dir: Path | None = None) -> str:
        """Hash of all that decides a model's answers: weights, tokenizer, lm-eval type and arguments, template.

        Keys, headers and credentials are none of it: whoever asks, a server answers the same.
        """
        weights = model.weights
        content: str | None = None
        if weights is not None:
            # Beside other weights the tokenizer and its settings lie in files of their own.
            whole = weights.sha256 if alone(weights) else None
            content = whole or folder_hash(find_weights(weights, model.name, self.folder, weights_dir))
        return content_hash(model.lm_eval, model.answering_arguments, content, model.template, model.chat_template)

    def to_dict(self) -> dict[str, Any]:
        """The pool as plain data, as a manifest keeps it: without the secrets among the models' arguments."""
        data = asdict(self)
        del data["folder"]
        return {**data, "models": [{**model, "arguments": masked(model["arguments"])} for model in data["models"]]}


def pool_names() -> list[str]:
    """The pools that ship with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_pool(name_or_path: str) -> Pool:
    """A shipped pool by its name, or any pool by the path of its YAML file.

    Raises UserError if there is none, or if the file is not a pool.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        path = FOLDER / f"{name_or_path}.yaml"
        if name_or_path not in pool_names():
            hint = did_you_mean(name_or_path, pool_names())
            raise UserError(
                f"unknown pool {shown(name_or_path)}: known are {', '.join(pool_names())}, or a YAML file{hint}"
            )
    data = read_yaml(path, "pool")
    if isinstance(data, dict) and "billed" in data:
        raise UserError(f"pool file {path}: `billed` is for imported tables of outcomes; give each model a `base_rate`")
    pool = pool_from_dict(data, f"pool file {path}", path.parent)
    for model in pool.models:
        where = f"pool file {path}: model {model.name}: arguments"
        from_plain(ServerArguments, model.arguments, where, secret=("header", "base_url"))
    return pool


def pool_from_dict(data: Any, where: str, folder: Path = FOLDER) -> Pool:
    """A pool from plain data. `where` names the data in the text of a UserError."""
    if not isinstance(data, dict) or "folder" in data:
        raise UserError(f"{where}: expected a mapping with the keys name, cost_unit, rates and models")
    pool = replace(from_plain(Pool, data, where, secret=("arguments",)), folder=folder)
    check_name(pool.name, f"{where}: name")
    for model in pool.models:
        check_name(model.name, f"{where}: model name")
        try:
            check_template(model.template)
        except UserError as error:
            raise UserError(f"{where}: model {model.name}: {error}") from None
    if pool.cost_unit:  # empty if no costs were recorded
        check_name(pool.cost_unit, f"{where}: cost_unit")
    check_distinct([model.name for model in pool.models], f"{where}: model name")
    return pool
