"""`hierrouter`: the trained PPO agent of HierRouter (arXiv 2511.09873), from its checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from pools.errors import UserError, shown
from routers._tensor_file import read_tensors, write_tensors
from routers.encoders.base import ContextEncoder, restore_encoder
from routers.registry import RouterRequest, register
from routers.router import RoutingStates
from routers.state import Part, StateFeatures

if TYPE_CHECKING:
    from routers._policy import Policy

_KEY = "hierrouter"
_MOST = 1e12  # of any number in a configuration


@dataclass(frozen=True)
class HierRouterConfig:
    """What a policy was trained for. models: names, in the order of the actions; the rest as in `Policy`.

    sees: what its state is made of, of `state.Part`. cost_weight: the lambda that it is used with by default.
    cost_weights: the lambdas that were drawn and shown to it in training; none where it was trained for one alone.
    training: how it was trained, for people: arguments, versions, the recording.
    """

    models: tuple[str, ...]
    max_hops: int
    allow_stop: bool
    cost_scale: float
    hidden: int
    sees: tuple[str, ...]
    cost_weight: float
    cost_weights: tuple[float, ...]
    encoder: dict[str, Any]
    training: dict[str, Any]

    @property
    def features(self) -> StateFeatures:
        """What the policy sees beside the embedding."""
        shown = "models" in self.sees, bool(self.cost_weights)
        return StateFeatures(self.max_hops, len(self.models), self.cost_scale, *shown)

    def policy(self, dimension: int) -> Policy:
        """A policy of this form with new weights, for embeddings of so many dimensions."""
        from routers._policy import Policy

        return Policy(dimension, self.features.dimension, len(self.models), self.allow_stop, self.hidden)


class HierRouter:
    """Embeds the context and lets the policy choose: the most probable action, or with `greedy=False` a drawn one.

    cost_weight: the lambda that is shown to a policy that was trained for several; by default the configuration's.
    """

    def __init__(
        self,
        config: HierRouterConfig,
        policy: Policy,
        embed: ContextEncoder,
        greedy: bool = True,
        cost_weight: float | None = None,
    ) -> None:
        self.config, self.policy, self.embed, self.greedy = config, policy, embed, greedy
        self.cost_weight = config.cost_weight if cost_weight is None else cost_weight
        self._generator = np.random.default_rng(0)

    def at(self, cost_weight: float) -> HierRouter:
        """The same policy, shown another lambda."""
        return HierRouter(self.config, self.policy, self.embed, self.greedy, cost_weight)

    def probabilities(self, states: RoutingStates) -> NDArray[np.float64]:
        """`[B, A]` probability of each action; one-hot where the router is greedy."""
        import torch

        with torch.inference_mode():
            features = self.config.features(states.hop, states.cost, states.actions, self.cost_weight)
            logits, _ = self.policy(torch.from_numpy(self.embed(states.contexts)), torch.from_numpy(features))
        if self.greedy:
            return np.eye(logits.shape[1])[logits.argmax(1).numpy()]
        return np.asarray(torch.softmax(logits.double(), 1).numpy())

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` actions."""
        chance = self.probabilities(states)
        if self.greedy:
            return np.asarray(chance.argmax(axis=1), np.int64)
        drawn = self._generator.random((len(chance), 1)) > chance.cumsum(axis=1)
        return np.asarray(drawn.sum(axis=1).clip(max=chance.shape[1] - 1), np.int64)

    def routing_cost(self, states: RoutingStates) -> NDArray[np.float64]:
        """`[B]` cost of the encoder at each state; 0 for `hashing`, which runs no model."""
        return self.embed.cost(states.contexts)

    def save(self, path: Path) -> None:
        """Write the checkpoint (safetensors), whole or not at all."""
        tensors = {f"policy.{name}": tensor.numpy() for name, tensor in self.policy.state_dict().items()}
        tensors |= {f"encoder.{name}": array for name, array in self.embed.encoder.arrays().items()}
        write_tensors(path, tensors, _KEY, asdict(self.config))


def read_config(path: Path) -> HierRouterConfig:
    """What a checkpoint says of itself. Raises UserError where the file is no checkpoint, or a damaged one."""
    return _read(path)[0]


def _read(path: Path) -> tuple[HierRouterConfig, dict[str, NDArray[Any]]]:
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}; train one with python -m harness train --out {path}")
    try:
        tensors, config = read_tensors(path, _KEY)
        lists = {name: tuple(config[name]) for name in ("models", "sees", "cost_weights")}
        if wrong := next((name for name in lists if not isinstance(config[name], list)), None):
            raise ValueError(f"its configuration has {wrong} {shown(config[wrong])}, expected a list")
        if wrong := next((name for name, array in tensors.items() if not np.isfinite(array).all()), None):
            raise ValueError(f"{wrong} has a value that is no finite number")
        return _checked(HierRouterConfig(**{**config, **lists})), tensors
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _no_checkpoint(path, error) from None


def _checked(config: HierRouterConfig) -> HierRouterConfig:
    """The configuration itself. Raises ValueError for values that no training writes."""

    def number(value: Any, least: float, kinds: Any = int | float) -> bool:
        return isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= _MOST

    models, weights = config.models, (config.cost_weight, *config.cost_weights)
    sound = {
        "models": all(isinstance(name, str) and name for name in models) and 0 < len(set(models)) == len(models),
        "max_hops": number(config.max_hops, 1, int),
        "allow_stop": isinstance(config.allow_stop, bool),
        "cost_scale": number(config.cost_scale, 1e-12),
        "hidden": number(config.hidden, 1, int),
        "sees": set(config.sees) <= set(get_args(Part)),
        "cost_weight": all(number(weight, 0) for weight in weights),
        "encoder": isinstance(config.encoder, dict),
        "training": isinstance(config.training, dict),
    }
    if wrong := next((name for name, is_sound in sound.items() if not is_sound), None):
        raise ValueError(f"its configuration has {wrong} {shown(getattr(config, wrong))}")
    return config


def _no_checkpoint(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{path} is not a HierRouter checkpoint ({reason}); train one with python -m harness train")


def load_checkpoint(
    path: Path, greedy: bool = True, weights: Path | None = None, cost_weight: float | None = None
) -> HierRouter:
    """Read what `HierRouter.save` wrote. Nothing is unpickled. Raises UserError where the file is no checkpoint.

    cost_weight: the lambda to show to a policy that was trained for several; by default the one it was saved with.
    weights: folder to look for the encoder's weights in, where it runs a model.
    """
    import torch

    config, tensors = _read(path)
    try:
        encoder = restore_encoder(config.encoder, _below("encoder.", tensors), weights)
        embed = ContextEncoder(encoder, config.sees)
        # Before anything of that size is made: the configuration could ask for any.
        form = config.hidden, embed.dimension + config.features.dimension
        if (found := tensors["policy.actor.0.weight"].shape) != form:
            raise ValueError(f"policy.actor.0.weight is {found}, its configuration asks for {form}")
        policy = config.policy(embed.dimension)
        policy.load_state_dict({n: torch.from_numpy(a) for n, a in _below("policy.", tensors).items()})
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise _no_checkpoint(path, error) from None
    return HierRouter(config, policy.eval(), embed, greedy, cost_weight)


@register("hierrouter")
def hierrouter(request: RouterRequest) -> HierRouter:
    """The PPO agent, from --checkpoint or trained now; hierrouter:stochastic draws its actions."""
    if request.argument not in ("", "stochastic"):
        raise UserError(f"unknown router hierrouter:{request.argument}: expected hierrouter or hierrouter:stochastic")
    greedy = request.argument != "stochastic"
    if request.checkpoint is not None:
        # Without models there is no run whose cost weight would count: the router is used by itself.
        cost_weight = request.cost_weight if request.models else None
        router = load_checkpoint(request.checkpoint, greedy, request.weights, cost_weight)
        _check(router.config, request)
        return router
    if request.train is None or request.cost_model is None:
        raise UserError("router hierrouter needs a checkpoint: python -m harness train writes one")
    if not request.train.complete:
        raise UserError("router hierrouter with --live needs --checkpoint; python -m harness train --live writes one")
    from routers.ppo_hierrouter import Args, train

    options = dict(request.options)
    arguments = Args(
        seed=request.seed,
        cost="dollars" if request.cost_model.name == "dollars" else "paper",
        cost_weight=request.cost_weight,
        allow_stop=request.allow_stop,
        preset="paper" if options.get("preset") == "paper" else "default",
        cost_weights=tuple(map(float, options.get("cost_weights", "").split())),
        encoder=options.get("encoder", Args.encoder),
        weights=request.weights,
    )
    router = train(arguments, request.train, request.validation, request.cost_model)
    router.greedy = greedy
    return router


def _check(config: HierRouterConfig, request: RouterRequest) -> None:
    if request.models and config.models != request.models:
        raise UserError(
            f"the checkpoint is for the models {', '.join(config.models)}, the pool has {', '.join(request.models)}; "
            "name another checkpoint, or train one"
        )
    if request.models and config.max_hops != request.max_hops:
        raise UserError(
            f"the checkpoint is for {config.max_hops} hops, this run has {request.max_hops}; "
            f"use --max-hops {config.max_hops}, or another checkpoint"
        )
    if request.models and config.allow_stop and not request.allow_stop:
        raise UserError(
            "the checkpoint may stop early and this run may not; drop --no-allow-stop, or train one that may not"
        )
    trained_on = config.training.get("arguments", {}).get("cost")
    billed = request.cost_model is not None and request.cost_model.billed  # its own costs, whatever was asked for
    if request.cost_model is not None and not billed and trained_on not in (None, request.cost_model.name):
        raise UserError(
            f"the checkpoint sees costs as --cost {trained_on}, this run has {request.cost_model.name}; "
            f"use --cost {trained_on}, or another checkpoint"
        )


def _below(prefix: str, tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
