"""A pool: the candidate models, declared in one YAML file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pools.cost import MOST_RATE, CostModel, dollar_cost, paper_cost
from pools.errors import UserError, shown
from pools.names import check_distinct, check_name
from pools.secrets import identity, masked
from pools.template import CONCATENATION, check_template
from pools.types import content_hash
from pools.weights import Weights, alone, find_weights, folder_hash
from pools.yaml_file import read_yaml

FOLDER = Path(__file__).parent
# Arguments of lm-eval models that say where to run, not what is answered.
_PLACEMENT = {"device", "batch_size", "max_batch_size", "num_concurrent", "max_retries", "timeout", "parallelize"}

# What the annotations of the dataclasses below allow; the others are dataclasses themselves or are checked by hand.
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "dict[str, Any]": (dict,),
    "dict[str, float]": (dict,),
}


@dataclass(frozen=True)
class Price:
    """US$ per million tokens read and written, with where and when they were read."""

    input: float
    output: float
    source: str


@dataclass(frozen=True)
class Resources:
    """What a model needs on a cluster.

    replicas: how many actors load it. num_cpus, num_gpus, custom: of each, as Ray counts them; `custom` by name.
    """

    replicas: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    custom: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CandidateModel:
    """One model of a pool.

    lm_eval: any model type of lm-eval (`hf`, `vllm`, `local-chat-completions`, ...). arguments: its arguments.
    base_rate: the paper's cost per token. price: dollars, where it has a price.
    template: Jinja text over `query` and `responses`; by default the paper's concatenation.
    chat_template: whether the rendered text is wrapped as a user's message by the tokenizer's chat template.
    batch_size: requests per call. weights: where they are; API models have none.
    resources: what it needs on a cluster (`record --engine ray`).
    """

    name: str
    lm_eval: str
    base_rate: float
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    template: str = CONCATENATION
    chat_template: bool = False
    batch_size: int = 16
    price: Price | None = None
    description: str = ""
    resources: Resources = Resources()

    @property
    def at_once(self) -> int:
        """Requests that are handed over together: a batch, and at least as many as a server is asked at a time."""
        concurrent = self.arguments.get("num_concurrent")
        return max(self.batch_size, concurrent) if type(concurrent) is int else self.batch_size


@dataclass(frozen=True)
class Pool:
    """The candidate models, in the order of their action indices.

    cost_unit: the unit of `base_rate * tokens`. rates: where the base rates are from and of what date.
    billed: the cost of every response was recorded with it, in `cost_unit`; without a unit there are no costs at all.
    folder: what relative weight paths are relative to.
    """

    name: str
    models: tuple[CandidateModel, ...]
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
        """`paper` or `dollars`. Raises UserError for another name, and where a model has no price."""
        if self.billed and name in ("paper", "dollars"):
            none = (0.0,) * len(self.models)
            return CostModel("billed", self.cost_unit, none, none, self.rates, billed=True)
        if name == "paper":
            return paper_cost(tuple(m.base_rate for m in self.models), self.cost_unit, self.rates)
        if name != "dollars":
            raise UserError(f"unknown cost model {name!r}: expected paper or dollars")
        prices = [m.price for m in self.models if m.price is not None]
        if len(prices) < len(self.models):
            unpriced = ", ".join(m.name for m in self.models if m.price is None)
            raise UserError(
                f"no price for {unpriced} in pool {self.name}: add `price:` to the pool file, or --cost paper"
            )
        source = "; ".join(sorted({p.source for p in prices}))
        return dollar_cost(tuple(p.input for p in prices), tuple(p.output for p in prices), source)

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
        arguments = identity({k: v for k, v in model.arguments.items() if k not in _PLACEMENT})
        return content_hash(model.lm_eval, arguments, content, model.template, model.chat_template)

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

    Raises UserError where there is none, or where the file is not a pool.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        path = FOLDER / f"{name_or_path}.yaml"
        if name_or_path not in pool_names():
            close = get_close_matches(name_or_path, pool_names(), 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(
                f"unknown pool {shown(name_or_path)}: known are {', '.join(pool_names())}, or a YAML file{hint}"
            )
    data = read_yaml(path, "pool")
    if isinstance(data, dict) and "billed" in data:
        raise UserError(f"pool file {path}: `billed` is for imported tables of outcomes; give each model a `base_rate`")
    pool = pool_from_dict(data, f"pool file {path}", path.parent)
    for model in pool.models:
        _check_server(model.arguments, f"pool file {path}: model {model.name}: arguments")
    return pool


def pool_from_dict(data: Any, where: str, folder: Path = FOLDER) -> Pool:
    """A pool from plain data. `where` names the data in the text of a UserError."""
    top = _checked(data, Pool, where, {"folder"})
    check_name(top["name"], f"{where}: name")
    if top["cost_unit"]:  # empty where no costs were recorded
        check_name(top["cost_unit"], f"{where}: cost_unit")
    listed = top["models"]
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{where}: `models` must be a list of at least one model")
    models = []
    for number, entry in enumerate(listed, 1):
        at = f"{where}: model {_name(entry, number)}"
        known = _checked(entry, CandidateModel, at)
        check_name(known["name"], f"{at}: name")
        if known.get("weights") is not None:
            known["weights"] = Weights(**_checked(known["weights"], Weights, f"{at}: weights"))
        if known.get("price") is not None:
            known["price"] = Price(**_checked(known["price"], Price, f"{at}: price"))
        known["resources"] = _resources(known.get("resources", {}), f"{at}: resources")
        model = CandidateModel(**known)
        rates = {"base_rate": model.base_rate}
        if model.price:
            rates |= {"price: input": model.price.input, "price: output": model.price.output}
        for key, rate in rates.items():
            if not 0 <= rate <= MOST_RATE:
                raise UserError(f"{at}: {key} must be a number >= 0, and at most {MOST_RATE:g}, got {shown(rate)}")
        if model.batch_size < 1:
            raise UserError(f"{at}: batch_size must be a whole number >= 1, got {model.batch_size}")
        if model.weights and not (model.weights.path or model.weights.repository):
            raise UserError(f"{at}: weights need a `path` or a `repository`")
        if model.weights and model.weights.sha256 is not None:
            if not model.weights.file:
                raise UserError(f"{at}: weights with a `sha256` need the `file` that has it")
            if not re.fullmatch("[0-9a-fA-F]{64}", model.weights.sha256):
                given = shown(model.weights.sha256)
                raise UserError(f"{at}: weights: sha256 must be 64 hexadecimal digits, got {given}; see sha256sum FILE")
        try:
            check_template(model.template)
        except UserError as error:
            raise UserError(f"{at}: {error}") from None
        models.append(model)
    check_distinct([model.name for model in models], f"{where}: model name")
    return Pool(**{**top, "models": tuple(models), "folder": folder})


def _check_server(arguments: Mapping[str, Any], where: str) -> None:
    """Raise UserError for what every request to a server would fail with; a text is not shown, it may be a key."""
    header, url = arguments.get("header"), arguments.get("base_url")
    if header is not None and not (
        isinstance(header, dict)
        and all(isinstance(text, str) and re.fullmatch(r"[^\r\n]*", text) for pair in header.items() for text in pair)
    ):
        raise UserError(f"{where}: header must be a mapping of names to texts of one line, as `{{Authorization: ...}}`")
    if url is not None and not (isinstance(url, str) and re.match("https?://.", url)):
        raise UserError(f"{where}: base_url must begin with http:// or https://")
    for name, least in (("num_concurrent", 1), ("max_retries", 0)):
        given = arguments.get(name, least)
        if type(given) is not int or given < least:
            raise UserError(f"{where}: {name} must be a whole number >= {least}, got {shown(given)}")


def _resources(data: Any, where: str) -> Resources:
    resources = Resources(**_checked(data, Resources, where))
    largest = sys.float_info.max
    amounts = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus, **resources.custom}
    for name, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount <= largest:
            raise UserError(f"{where}: {name} must be a number >= 0, got {shown(amount)}")
    if resources.replicas < 1:
        raise UserError(f"{where}: replicas must be a whole number >= 1, got {resources.replicas}")
    return resources


def _checked(data: Any, target: type, where: str, internal: set[str] | None = None) -> dict[str, Any]:
    """The data as keyword arguments of a dataclass, or a UserError that names the key at fault."""
    from dataclasses import MISSING

    known = {f.name: f for f in fields(target) if f.name not in (internal or set())}
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected a mapping with the keys {', '.join(known)}")
    unknown = sorted(set(map(str, data)) - set(known))
    if unknown:
        raise UserError(f"{where}: unknown key {shown(unknown[0])}; expected {', '.join(known)}")
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in data]
    if missing:
        raise UserError(f"{where}: `{missing[0]}` is missing")
    for name, value in data.items():
        kinds = _KINDS.get(str(known[name].type))
        given = type(value).__name__ if name == "arguments" else shown(value)  # keys may be among them
        if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            hint = " (YAML reads 1e-4 as text, 1.0e-4 as a number)" if float in kinds and isinstance(value, str) else ""
            raise UserError(f"{where}: {name} must be a {kinds[0].__name__}, got {given}{hint}")
        if kinds and not _plain(value):
            raise UserError(f"{where}: {name} must be plain data that JSON and UTF-8 can hold, got {given}")
    return dict(data)


def _name(entry: Any, number: int) -> str:
    return shown(entry.get("name", number)).strip("'") if isinstance(entry, dict) else str(number)


def _plain(value: Any) -> bool:
    """Whether a manifest gives the value back as it is; a number is judged where its range is known."""
    if not isinstance(value, str | dict):
        return True
    try:
        return bool(json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False).encode()) == value)
    except (TypeError, ValueError, RecursionError):
        return False
