"""The file of a router that has learnt: arrays, and what they are of, with a checksum over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pools.cost import MAX_COST, RECORDED
from pools.errors import UserError
from pools.files import check_out_file, whole_file
from pools.schema import Schema, parse_json
from pools.types import content_hash
from routers.encoders.base import ENCODERS
from routers.router import Learnt, RouterRequest

_KEY = "router"
_CHECKSUM = "sha256"


Weight = Annotated[float, Field(ge=0, le=MAX_COST)]


class Problem(Schema):
    """The MDP that a router was fitted for."""

    models: tuple[str, ...]
    """Names of the candidate models, in the order of the actions."""
    max_hops: Annotated[int, Field(ge=1, le=10**12)]
    """The horizon L."""
    allow_stop: bool
    """Whether it may stop before the last hop."""
    cost: str | None
    """Name of the cost model; null if costs are those of a table."""
    cost_weight: Weight
    """The lambda that it is used with by default."""
    cost_weights: tuple[Weight, ...]
    """With several, the lambdas that it was fitted for."""
    prices: tuple[Weight, Weight] | None = None
    """Cost weight and latency weight, if the reward charges for seconds, too; `cost_weight` is then 1."""

    @classmethod
    def of(cls, request: RouterRequest) -> Problem:
        """The problem that a request states."""
        cost = request.cost_model
        return cls(
            models=request.models,
            max_hops=request.max_hops,
            allow_stop=request.allow_stop,
            cost=None if cost is None or cost.name == RECORDED else cost.name,
            cost_weight=request.cost_weight,
            cost_weights=request.cost_weights,
            prices=request.prices,
        )

    def request(self, weights: Path | None = None) -> RouterRequest:
        """The request that states this problem."""
        return RouterRequest(**self.model_dump(exclude={"cost"}), weights=weights)

    def serves(self, cost_weights: tuple[float, ...]) -> bool:
        """Whether it was fitted for these cost weights, or for ones around them."""
        fitted = self.cost_weights or (self.cost_weight,)
        return min(fitted) <= min(cost_weights) and max(cost_weights) <= max(fitted)

    def check(self, request: RouterRequest, path: Path) -> None:
        """Raise UserError if a router for this problem cannot serve the request; one without models asks nothing."""
        if not request.models:
            return
        if self.models != request.models:
            raise UserError(
                f"{path} is for the models {', '.join(self.models)}, the pool has {', '.join(request.models)}; "
                "name another checkpoint, or train one"
            )
        if self.max_hops != request.max_hops:
            raise UserError(
                f"{path} is for {self.max_hops} hops, this run has {request.max_hops}; use --max-hops "
                f"{self.max_hops}, or another checkpoint"
            )
        if self.allow_stop and not request.allow_stop:
            raise UserError(f"{path} may stop early and this run may not; drop --no-allow-stop, or train another")
        if self.prices != request.prices:
            raise UserError(
                f"{path} was trained {_said(self.prices)} and is asked for {_said(request.prices)}; give these weights "
                "where they can be given (run, train), or name another checkpoint"
            )
        cost = request.cost_model
        if cost is not None and cost.name != RECORDED and self.cost not in (None, cost.name):
            raise UserError(
                f"{path} was trained with the cost model {self.cost}, not {cost.name}; name that with --cost (FILE.py "
                "if it is one of your own), or another checkpoint"
            )


def _said(prices: tuple[float, float] | None) -> str:
    if prices is None:
        return "with no latency weight"
    return f"with --cost-weight {prices[0]:g} --latency-weight {prices[1]:g}"


class Header(Schema):
    """What a checkpoint says of itself."""

    router: str
    """The name that the router is registered by."""
    options: dict[str, Any]
    """The options that it was fitted with."""
    problem: Problem
    """The MDP that it was fitted for."""
    training: dict[str, Any]
    """How it was trained, for people."""
    texts: dict[str, str] = Field(default_factory=dict)
    """The texts among what it has learnt."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read."""

    header: Header
    learnt: Learnt


def write_checkpoint(path: Path, header: Header, learnt: Learnt) -> None:
    """Write the file, whole or not at all: the same content gives the same bytes."""
    texts = {name: value for name, value in learnt.items() if isinstance(value, str)}
    arrays = {name: value for name, value in learnt.items() if not isinstance(value, str)}
    write_tensors(path, arrays, _KEY, {**header.model_dump(), "texts": texts})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote; nothing is unpickled. Raises UserError if the file is no checkpoint."""
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}; train one with python -m harness train --out {path}")
    try:
        arrays, header = read_tensors(path, _KEY)
        if wrong := next((name for name, array in arrays.items() if not _finite(array)), None):
            raise ValueError(f"{wrong} has a value that is no finite number")
        found = parse_json(Header, json.dumps(header))
        return Checkpoint(found, {**arrays, **found.texts})
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise no_checkpoint(path, error) from None


def check_replaced(out: Path, header: Header) -> None:
    """Raise UserError if a file is there and is no checkpoint of the training that this header would be of.

    The same training is that of the same router, options, problem, seed and items; the versions of packages may differ.
    """
    if not out.exists():
        return
    try:
        there = read_checkpoint(out).header
    except UserError:
        raise UserError(
            f"--out {out} is there and is no checkpoint; name another file, or replace it with --force"
        ) from None
    before, now = (_decides(each) for each in (there, header))
    if other := [name for name in now if before[name] != now[name]]:
        raise UserError(
            f"--out {out} holds another training ({there.router}, seed {there.training.get('seed')}; it differs in "
            f"{', '.join(other)}); name another file, or replace it with --force"
        )


def _decides(header: Header) -> dict[str, Any]:
    """What decides what is learnt, as far as a header says it."""
    plain = json.loads(header.model_dump_json())
    of_training = {name: plain["training"].get(name) for name in ("seed", "source", "selection")}
    return {"router": plain["router"], "options": plain["options"], "problem": plain["problem"], **of_training}


def no_checkpoint(path: Path, error: Exception) -> UserError:
    """What to say of a file that is no checkpoint."""
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{path} is not the checkpoint of a router ({reason}); train one with python -m harness train")


def state_path(out: Path) -> Path:
    """Where the state is that a training of this checkpoint goes on from."""
    return out.with_name(out.name + ".state")


def state_beside(out: Path | None, resume: bool) -> Path | None:
    """The file beside a checkpoint that a training leaves what it goes on from in; None without a checkpoint.

    Raises UserError if there is one of a training that was stopped and is not resumed, or none to resume.
    """
    if out is None:
        if resume:
            raise UserError("--resume goes on from the state beside --out; name that checkpoint")
        return None
    check_out_file(out, force=True)  # of what is there `check_replaced` says more
    state = state_path(out)
    if resume and not state.is_file():
        raise UserError(f"nothing to resume: no {state}; omit --resume to start anew")
    if state.is_file() and not resume and not out.is_file():
        raise UserError(f"{state} is of a training that was stopped; go on with --resume, or name another --out")
    return state


def options_as_saved(learner: Any) -> dict[str, Any]:
    """The options of a learner as JSON; of an encoder its registered name, as its file and weights may be elsewhere."""
    values = {f.name: getattr(learner, f.name) for f in fields(learner)}
    if "encoder" in values:
        values["encoder"] = ENCODERS.find(str(values["encoder"]))[0]
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], key: str, facts: Mapping[str, Any]) -> None:
    """Write arrays and facts as safetensors, whole or not at all: the same content gives the same bytes.

    facts: plain data, kept as JSON in the file's metadata under `key`, with the sha256 of it and of the tensors.
    """
    from safetensors.numpy import save

    # safetensors writes the bytes as they lie, so they must lie in C order.
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    plain = json.loads(json.dumps(facts))
    # One entry alone: safetensors writes several in an order that differs from process to process.
    metadata = {key: json.dumps({**plain, _CHECKSUM: _checksum(tensors, plain)}, sort_keys=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(save(tensors, metadata))


def read_tensors(path: Path, key: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the facts. Raises ValueError if the file is none of these, or not what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})[key])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file, not a dict
        expected = facts.pop(_CHECKSUM)
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from None
    if expected != _checksum(tensors, facts):
        raise ValueError("damaged: its checksum does not agree with its content")
    return tensors, facts


def _finite(array: NDArray[Any]) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _checksum(tensors: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> str:
    described = [
        [name, str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
        for name, array in sorted(tensors.items())
    ]
    return content_hash(described, facts)
