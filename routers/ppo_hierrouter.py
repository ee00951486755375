"""Train HierRouter with PPO on a recorded tree: one file, top to bottom.

    python -m routers.ppo_hierrouter --recording results/recordings/lightweight-offline --out runs/policy.safetensors

PPO is that of Schulman et al. 2017 (arXiv 1707.06347) with the details of Huang et al. 2022. The environment is a tree
that is already known (or is asked for with live models behind the same seam), so episodes are array gathers and every
distinct context is embedded once. What the paper does not state, and that is every hyper-parameter, is our choice.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from pools.cost import COST_WEIGHT
from pools.errors import UserError
from pools.mdp.optimum import path_costs, solve
from pools.mdp.policy_value import action_values, expectation
from pools.mdp.tree import Tree
from pools.types import Context, content_hash
from routers._threads import one_library_thread, one_thread
from routers.call_bounds import CallBounds, lengths_at, moved
from routers.checkpoint import check_replaced, read_tensors, state_beside, write_tensors
from routers.induction import texts_pay
from routers.options import NonNegative, Positive
from routers.router import Log, Report, RouterRequest, Training
from routers.states import PARTS, TEXTS, Part, StateFeatures, features_of
from routers.tracking import log_checkpoint, tracked, tracking_asked

Share = Annotated[float, Field(ge=0, le=1)]
PAPER: tuple[Part, ...] = ("query", "response", "cost")
"""What the paper's state is made of, as we read it, besides the hop."""
MAX_STATES = 50_000
"""Of how many states at most means and spreads are taken."""
WEIGHT_GRID = np.arange(-4.5, 6.5)
"""Logarithms of what a whole episode costs, about which cost weights are shown as bumps."""
LEFT_GRID = np.arange(-7.0, 0.5, 0.5)
"""Logarithms of the share of a whole episode's cost that is left, about which it is shown as bumps."""
JUDGED_CAPS = (0.25, 0.5, 0.75, 1.0)
"""At which caps policies are compared: quantiles of what pipelines cost."""
SMALLEST_SPREAD = 0.01
"""Advantages that are smaller than this are not blown up to one."""
_STATE = "training"  # what the state that a training goes on from is called in its file


@dataclass(frozen=True)
class Options:
    """Every hyper-parameter."""

    preset: Literal["default", "paper"] = "default"
    """paper: models are the only actions, every episode has exactly L hops, the state is context embedding, hop and
    cost, and advantages are sampled; it overrides STOP, sees, advantages and several cost weights."""
    sees: Annotated[tuple[Part, ...], Field(min_length=1)] | None = None
    """What the policy sees of a state besides the hop; query and response are their embeddings. By default all parts,
    or, of a recorded tree, those without texts if these do not pay in cross-validation."""
    encoder: str = "hashing"
    """Encoder of query and response: hashing, sentence, sentence:PATH, or with +surface."""
    advantages: Literal["exact", "sampled"] = "exact"
    """exact: of every action, from the recorded tree. sampled: of the actions of drawn episodes, by GAE and a critic;
    over live models they always are."""
    caps: bool = False
    """Train under caps on what an item may cost, one drawn for each tree, and show what is left of it: for a run with
    --cap. Only with exact advantages and STOP."""
    hidden: PositiveInt = 64
    """Width of the two hidden layers of actor and critic."""
    average: Share | None = None
    """The policy that is evaluated and kept is a running mean of the weights: how much of it stays an iteration. By
    default 0.8 with exact and 0, the weights themselves, with sampled advantages."""
    eval_every: NonNegativeInt = 5
    """Iterations between two exact evaluations on train and validation items; 0: only the last."""
    select: bool = True
    """Keep the policy with the best exact value on validation items, instead of the last one."""
    save_every: PositiveInt = 20
    """Iterations between two writes of the state that a training goes on from."""

    total_trees: PositiveInt = 24_000
    """Exact advantages: trees in all, each of an item at a cost weight; small tables need many passes."""
    num_trees: PositiveInt = 64
    """Exact advantages: trees of an iteration."""
    total_timesteps: PositiveInt = 600_000
    """Sampled advantages: environment steps (hops) in all. With exact ones it has no effect: `total_trees` has."""
    num_envs: PositiveInt = 1024
    """Sampled advantages: episodes that run side by side."""
    num_steps: PositiveInt = 8
    """Sampled advantages: steps of each environment per iteration."""
    learning_rate: NonNegative | None = None
    """Adam's step size. By default 3e-3 with exact and 1e-3 with sampled advantages."""
    anneal_lr: bool = True
    """Let the step size fall linearly to zero."""
    gamma: Share = 1.0
    """Discount; episodes have at most L hops, so none is needed."""
    gae_lambda: Share = 0.95
    """Lambda of generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438)."""
    num_minibatches: PositiveInt | None = None
    """Minibatches per epoch. By default 2 with exact and 4 with sampled advantages."""
    update_epochs: PositiveInt = 4
    """Epochs over each iteration's batch."""
    norm_adv: bool = True
    """Normalise advantages: exact ones within each cost weight, sampled ones within each minibatch."""
    clip_coef: NonNegative = 0.2
    """How far the probability ratio may move."""
    clip_vloss: bool = False
    """Clip the value loss like the policy loss."""
    entropy_start: Positive = 0.1
    """Exact advantages: weight of the entropy bonus at first; it falls geometrically."""
    entropy_end: Positive = 0.001
    """Exact advantages: weight of the entropy bonus at last."""
    explore: Share = 0.5
    """Exact advantages: share of the weight of states that is spread over all nodes, wherever the policy goes."""
    stop_bias: float = 2.0
    """What the logit of STOP begins with: an answer is kept unless going on is seen to be better."""
    ent_coef: NonNegative = 0.01
    """Sampled advantages: weight of the entropy bonus."""
    vf_coef: NonNegative = 0.5
    """Weight of the value loss."""
    max_grad_norm: NonNegative = 0.5
    """Norm that gradients are clipped to."""
    target_kl: NonNegative | None = None
    """Leave the epochs of an iteration once the approximate KL divergence is above this."""

    def __post_init__(self) -> None:
        if self.preset == "paper":
            object.__setattr__(self, "sees", PAPER)
            object.__setattr__(self, "advantages", "sampled")


@dataclass(frozen=True)
class Args(Options):
    """What the command line takes besides."""

    recording: Path = Path("results/recordings/lightweight-offline")
    """Recording to train on: its train items; its validation items choose the checkpoint."""
    out: Path | None = None
    """Checkpoint to write (safetensors); beside it the state that --resume goes on from. Nothing is written without."""
    resume: bool = False
    """Go on from the state beside `out` where an earlier run of the same arguments was stopped."""
    force: bool = False
    """Replace another training's checkpoint of `out`."""
    seed: int = 1
    """Seed of the weights, the items, the actions and the minibatches."""
    track: bool = False
    """Log to wandb; WANDB_MODE=offline works. With `out` the checkpoint is an artifact."""
    wandb_project: str | None = None
    """The wandb project; by default hierrouter-harness."""
    wandb_entity: str | None = None
    """The wandb team."""
    wandb_group: str | None = None
    """The wandb group; by default none."""
    wandb_name: str | None = None
    """Name of the wandb run; by default ppo_hierrouter, seed and time."""
    wandb_tags: tuple[str, ...] = ()
    """Tags of the wandb run."""
    max_hops: int | None = None
    """Horizon L; by default the recording's."""
    allow_stop: bool = True
    """Whether the policy may stop before the last hop; the paper's policy may not (--no-allow-stop)."""
    cost: str = "paper"
    """Cost model: paper, dollars, or FILE.py with your own."""
    cost_weight: float = COST_WEIGHT
    """The lambda of the reward: quality given up for one unit of cost."""
    cost_weights: tuple[float, ...] = ()
    """Lambdas to draw from, one for each episode, and to show to the policy: one training then serves them all, and
    those between them (cost_weight is the one that it is used with by default). None: cost_weight alone, not shown."""
    weights: Path | None = None
    """Folder to look for a sentence transformer in, by its hub name."""


class Agent:
    """Actor and critic: two small MLPs over the numbers that a state is.

    The paper states neither sizes nor activations: two hidden layers of tanh are our choice.

    inputs: how many numbers, as of `StateTable`. models: `M`. allow_stop: whether action `M` is STOP, which is never
    open at hop 0. stop_bias: what its logit begins with.
    """

    def __init__(self, inputs: int, models: int, allow_stop: bool, hidden: int, stop_bias: float = 0.0) -> None:
        from torch import nn

        self.models, self.allow_stop = models, allow_stop
        actions = models + int(allow_stop)
        self.nets = nn.ModuleDict(
            {"actor": _mlp(inputs, hidden, actions, 0.01), "critic": _mlp(inputs, hidden, 1, 1.0)}
        )
        if allow_stop:
            nn.init.constant_(self.nets.actor[-1].bias[models:], stop_bias)

    def logits(self, seen: Any) -> Any:
        """`[..., A]` from states `[..., d]`; their first number is 1 at hop 0 and 0 later."""
        import torch

        logits = self.nets.actor(seen)
        if self.allow_stop:
            closed = (seen[..., :1] == 1) & (torch.arange(logits.shape[-1]) == self.models)
            logits = logits.masked_fill(closed, -1e9)
        return logits

    def values(self, seen: Any) -> Any:
        """`[...]` what the critic expects to come."""
        return self.nets.critic(seen).squeeze(-1)


def _mlp(inputs: int, hidden: int, outputs: int, gain: float) -> Any:
    """Orthogonal weights and zero biases, as is usual for PPO (Huang et al. 2022, "The 37 implementation details")."""
    from torch import nn

    layers = [nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)]
    for layer, scale in zip(layers, (math.sqrt(2), math.sqrt(2), gain), strict=True):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


@dataclass(frozen=True, eq=False)
class Inputs:
    """Turns states into the numbers that an agent takes: hop, what is seen, and the cost weight if it is shown.

    mean, scale: `[d]` that what is seen is standardised by; 0 and 1 for hop and embedding. cost_weights: those that it
    is trained for; if there are none, the cost weight is not shown. caps: whether what is left of a cap is shown.
    """

    features: StateFeatures
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    cost_weights: tuple[float, ...]
    caps: bool = False

    @property
    def dimension(self) -> int:
        """How many numbers there are."""
        return len(self.mean) + (1 + len(WEIGHT_GRID)) * bool(self.cost_weights) + (1 + len(LEFT_GRID)) * self.caps

    def seen(
        self, contexts: Sequence[Context], hop: NDArray[np.int64], cost: NDArray[np.float64], actions: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """float32 `[n, d]` of states without their cost weight; the first number is 1 at hop 0 and 0 later."""
        found = np.concatenate([*self.features.blocks(contexts, hop, cost, actions).values()], axis=1)
        return np.asarray((found - self.mean) / self.scale, np.float32)

    def with_weight(self, seen: NDArray[np.float32], cost_weight: ArrayLike) -> NDArray[np.float32]:
        """The states `[..., d]` with their cost weights `[...]`, in logarithms of what a whole episode costs.

        The logarithm, and bumps about those of a grid: with these a policy can change abruptly from one to the next. A
        weight outside the range that it is trained for is shown as the nearest end.
        """
        if not self.cost_weights:
            return seen
        known = np.clip(np.asarray(cost_weight, np.float64), min(self.cost_weights), max(self.cost_weights))
        log = np.log(known * self.features.cost_scale + 0.01)
        return _beside(seen, log, WEIGHT_GRID, 1.0)

    def with_left(self, seen: NDArray[np.float32], left: ArrayLike) -> NDArray[np.float32]:
        """The states `[..., d]` with what is left of a cap `[...]`, in the same manner; more than all is as all."""
        if not self.caps:
            return seen
        log = np.log(np.clip(np.asarray(left) / self.features.cost_scale, 0, 1) + 1e-3)
        return _beside(seen, log, LEFT_GRID, 0.5)


def _beside(
    seen: NDArray[np.float32], number: NDArray[np.float64], grid: NDArray[np.float64], width: float
) -> NDArray[np.float32]:
    """States `[..., d]`, and beside each a number `[...]`, over 4, and its bumps about a grid."""
    bumps = np.exp(-(((number[..., None] - grid) / width) ** 2) / 2)
    shown = np.concatenate([number[..., None] / 4, bumps], axis=-1).astype(np.float32)
    return np.concatenate([seen, np.broadcast_to(shown, (*seen.shape[:-1], shown.shape[-1]))], axis=-1)


def make_inputs(features: StateFeatures, tree: Tree, cost_weights: tuple[float, ...], caps: bool = False) -> Inputs:
    """Standardise what is seen by all decision nodes of a tree that are known."""
    unscaled = Inputs(features, np.zeros(1, np.float32), np.ones(1, np.float32), cost_weights)
    items, nodes = np.nonzero(tree.known[:, : tree.decision_nodes])
    few = np.random.default_rng(0).permutation(len(items))[:MAX_STATES]
    seen = StateTable(tree, unscaled)(items[few], nodes[few])
    column, embedded = np.arange(features.width), 0 if features.embed is None else features.embed.dimension
    scaled = (column >= features.max_hops) & (column < features.width - embedded)
    mean, spread = np.where(scaled, seen.mean(axis=0), 0), np.where(scaled, seen.std(axis=0), 1)
    scale = np.where(spread > 1e-6, spread, 1)
    return Inputs(features, mean.astype(np.float32), scale.astype(np.float32), cost_weights, caps)


class StateTable:
    """The states of a tree's decision nodes as numbers, each made when it is first asked for."""

    def __init__(self, tree: Tree, inputs: Inputs) -> None:
        self.tree, self.inputs, self._pipelines = tree, inputs, tree.pipelines()
        self._made = np.zeros((len(tree.items), tree.decision_nodes), bool)
        self._seen: NDArray[np.float32] | None = None

    def __call__(self, items: ArrayLike, nodes: ArrayLike) -> NDArray[np.float32]:
        """float32 `[..., d]` of the nodes `(items[k], nodes[k])`, which are known, without their cost weight."""
        rows, columns = np.broadcast_arrays(np.asarray(items, np.int64), np.asarray(nodes, np.int64))
        missing = np.argwhere(~self._made[rows, columns])
        if len(missing) or self._seen is None:
            wanted = np.unique(np.stack([rows, columns], axis=-1)[~self._made[rows, columns]], axis=0)
            at = wanted[:, 0], wanted[:, 1]
            contexts = [self.tree.contexts[c] for c in self.tree.context_ids(*at).tolist()]
            seen = self.inputs.seen(contexts, self.tree.depth[at[1]], self._spent(*at), self._pipelines[at[1]])
            if self._seen is None:
                self._seen = np.zeros((*self._made.shape, seen.shape[1]), np.float32)
            self._seen[at], self._made[at] = seen, True
        return self._seen[rows, columns]

    def _spent(self, items: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.float64]:
        """`[n]` cost of the pipelines that lead to the nodes."""
        spent = np.zeros(len(items))
        while (nodes > 0).any():
            spent += self.tree.cost[items, nodes]
            nodes = np.where(nodes > 0, (nodes - 1) // len(self.tree.models), 0)
        return spent


def _pace(args: Options, exactly: bool) -> tuple[float, int, float]:
    """Step size, minibatches an epoch, and how much of the running mean stays: as asked for, or what suits either way.

    Sampled advantages are noisy: more and smaller steps; their settings are those of before there were exact ones.
    """
    step_size, minibatches, stays = (3e-3, 2, 0.8) if exactly else (1e-3, 4, 0.0)
    return (
        step_size if args.learning_rate is None else args.learning_rate,
        minibatches if args.num_minibatches is None else args.num_minibatches,
        stays if args.average is None else args.average,
    )


@one_thread()
def train(args: Options, tree: Tree, validation: Tree | None, request: RouterRequest) -> tuple[Agent, Inputs]:
    """Train on the items of `tree`, choose on those of `validation`; the agent, and what turns states into its inputs.

    The same options, trees, request and machine give the same agent, bit for bit, resumed or not.
    """
    import torch

    allow_stop, cost_weight, training = request.allow_stop, request.cost_weight, request.training
    exactly = args.advantages == "exact" and tree.complete
    if args.caps and not (exactly and allow_stop):
        raise UserError("caps=true needs a recording, advantages=exact and STOP; leave out caps, or what closes these")
    total, each = args.total_timesteps, args.num_envs * args.num_steps
    if exactly:
        total, each = args.total_trees, args.num_trees
    num_iterations = max(1, total // each)
    step_size, minibatches, stays = _pace(args, exactly)

    # --- the states, the policy, the optimizer -------------------------------------------------------------------
    # The encoder is fitted on what a policy can see of train items; over live models only the queries are known yet.
    highest = float(path_costs(tree)[:, tree.level(tree.max_hops)].max()) if tree.complete else 0.0
    rates = (*(tree.cost_model.input_rate or ()), *(tree.cost_model.output_rate or ()), 1e-12)
    cost_scale = highest or max(rates) * 1000 * tree.max_hops
    cost_weights = np.array(request.cost_weights or (cost_weight,))
    features = features_of(tree, args.sees or PARTS, args.encoder, request, cost_scale)
    held_out = [] if validation is None or validation is tree else [validation]
    recorded = all(part.complete for part in (tree, *held_out))
    if args.sees is None and recorded:
        with one_library_thread():
            if not texts_pay([tree, *held_out], features, request):
                features = replace(features, sees=tuple(part for part in PARTS if part not in TEXTS), embed=None)
    inputs = make_inputs(features, tree, request.cost_weights, args.caps)
    torch.manual_seed(request.seed)
    generator = torch.Generator().manual_seed(request.seed)
    policy, average = (
        Agent(inputs.dimension, len(tree.models), allow_stop, args.hidden, args.stop_bias) for _ in range(2)
    )
    average.nets.load_state_dict(policy.nets.state_dict())
    optimizer = torch.optim.Adam(policy.nets.parameters(), lr=step_size, eps=1e-5, fused=True)
    table = StateTable(tree, inputs)
    learn = (Exact if exactly else Sampled)(args, minibatches, table, policy, optimizer, cost_weights, generator)

    # --- exact evaluation ----------------------------------------------------------------------------------------
    complete = {name: t for name, t in (("train", tree), ("validation", validation)) if t is not None and t.complete}
    optima = {name: solve(t, cost_weight, allow_stop).value.mean() for name, t in complete.items()}
    # The value of the best single model, called once and stopped at, which is open to it whatever the policy may do.
    floors = {
        name: (t.score - cost_weight * path_costs(t))[:, t.level(1)].mean(axis=0).max() for name, t in complete.items()
    }
    tables = {name: learn.table if t is tree else StateTable(t, inputs) for name, t in complete.items()}
    # What a wrong call may lose at each cost weight: so all of them count alike.
    stakes = 1 + cost_weights * float(tree.cost[:, tree.level(1)].mean(axis=0).max()) if tree.complete else 1

    bounds = CallBounds.learn(tree) if args.caps else None
    bound_at = (
        {name: bounds(lengths_at(t), t.depth[: t.decision_nodes]) for name, t in complete.items()} if bounds else {}
    )
    # Without caps there is one that nobody reaches.
    caps = np.quantile(path_costs(tree)[:, 1:], JUDGED_CAPS, method="lower").tolist() if args.caps else [np.inf]

    def attained(name: str, weight: float, cap: float, greedy: bool) -> tuple[float, float]:
        """Expected quality and cost of the stochastic or the greedy policy at one cost weight, under a cap."""
        known = complete[name]

        def choose(items: Any, nodes: Any, cost: Any) -> Any:
            with torch.inference_mode():
                seen = inputs.with_weight(tables[name](items, nodes), np.full(len(items), weight))
                seen = inputs.with_left(seen, cap - cost)
                logits = average.logits(torch.from_numpy(seen))
            chance = np.zeros((len(items), len(known.models) + 1))
            if greedy:
                chance[np.arange(len(items)), logits.argmax(1).numpy()] = 1.0
            else:
                chance[:, : logits.shape[1]] = torch.softmax(logits.double(), 1).numpy()
            if bounds is None:
                return chance
            return moved(chance, *bounds.fitting(bound_at[name][items, nodes], cap - cost, known.depth[nodes]))

        found = expectation(known, choose)
        return float(found.quality.mean()), float(found.cost.mean())

    def exact(name: str) -> dict[str, float]:
        """What the stochastic policy attains at `cost_weight`; value of the greedy one at all weights, by stakes."""
        quality, cost = attained(name, cost_weight, np.inf, greedy=False)
        greedy = np.array(
            [
                np.mean([attained(name, weight, cap, greedy=True) for cap in caps], axis=0)
                for weight in cost_weights.tolist()
            ]
        )
        value, gap = quality - cost_weight * cost, optima[name] - floors[name]
        return {
            "quality": quality,
            "cost": cost,
            "regret": float(optima[name] - value),
            # Of a smaller gap a share says nothing.
            **({"gap_closed": float((value - floors[name]) / gap)} if gap >= 0.005 else {}),
            "greedy_value": float(((greedy[:, 0] - cost_weights * greedy[:, 1]) / stakes).mean()),
        }

    # --- start, or go on -----------------------------------------------------------------------------------------
    first, best_value, kept_at = 1, -float("inf"), 0
    best = {name: tensor.clone() for name, tensor in average.nets.state_dict().items()}
    identity = _identity(args, tree, validation, request)
    if training.resume and training.state is not None:
        first, best_value, kept_at, best = _restore(
            training.state, identity, policy, average, optimizer, learn, generator
        )
    chosen_on = "validation" if "validation" in complete else "train"
    start_time, steps = time.perf_counter(), 0

    for iteration in range(first, num_iterations + 1):
        progress = (iteration - 1) / num_iterations
        if args.anneal_lr:
            optimizer.param_groups[0]["lr"] = step_size * (1 - progress)
        logged = learn(progress)
        for mean, current in zip(average.nets.parameters(), policy.nets.parameters(), strict=True):
            mean.data.lerp_(current.data, 1 - stays)
        steps += learn.steps

        # --- look, log, save -------------------------------------------------------------------------------------
        last = iteration == num_iterations
        measured: dict[str, dict[str, float]] = {}
        if last or (args.eval_every and iteration % args.eval_every == 0):
            # What train items come to is a matter of the log: there are more of them.
            measured = {name: exact(name) for name in complete if name == chosen_on or training.log is not None}
            value = measured.get(chosen_on, {}).get("greedy_value")
            if value is None or not args.select or value > best_value:
                best_value, kept_at = -float("inf") if value is None else value, iteration
                best = {name: tensor.clone() for name, tensor in average.nets.state_dict().items()}
        speed = steps / (time.perf_counter() - start_time)
        if training.report is not None:
            said = f"return {logged.get('charts/episodic_return', 0.0):.3f}, {speed:,.0f} steps/s"
            training.report(iteration * learn.steps, num_iterations * learn.steps, said)
        if training.log is not None:
            logged |= {"charts/learning_rate": optimizer.param_groups[0]["lr"], "charts/SPS": speed}
            logged |= {f"exact/{name}_{key}": v for name, figures in measured.items() for key, v in figures.items()}
            training.log(training.name, iteration * learn.steps, logged)
        if training.state is not None and (last or iteration % args.save_every == 0):
            kept = best_value, kept_at, best
            _save(training.state, identity, iteration, kept, policy, average, optimizer, learn, generator)
    average.nets.load_state_dict(best)
    if training.log is not None:
        kept_of = {"step": kept_at * learn.steps, **(exact(chosen_on) if chosen_on in complete else {})}
        training.log(training.name, num_iterations * learn.steps, {f"kept/{key}": v for key, v in kept_of.items()})
    return average, inputs


class Exact:
    """PPO with exact advantages: an iteration takes whole trees, and weighs every action at each of their nodes.

    What an action is worth under the policy follows from the tree by backward induction, so nothing is sampled but the
    items and their cost weights, and no critic is needed. Where the policy does not come it would learn nothing, and an
    action that looked bad at first, because what follows was not learnt yet, would stay bad: it collapses onto one
    model. So a share `explore` of the weight of the states is spread over all nodes, and the entropy bonus falls from
    `entropy_start` to `entropy_end`. Advantages are divided by their root mean square of each cost weight, a running
    one, so that neither cheap nor expensive weights rule the gradient.

    With `caps` each tree has a cap, drawn from what the pipelines of all items cost. Calls that could exceed it are not
    made (`CallBounds`).

    steps: decisions that an iteration weighs.
    """

    def __init__(
        self, args: Options, minibatches: int, table: StateTable, policy: Agent, optimizer: Any, weights: Any,
        generator: Any,
    ) -> None:  # fmt: skip
        self.args, self.minibatches, self.table = args, minibatches, table
        self.policy, self.optimizer = policy, optimizer
        self.weights, self.generator, self.tree = weights, generator, table.tree
        self.trees = args.num_trees
        self.steps = self.trees * self.tree.decision_nodes
        self.square = np.zeros(len(weights))
        depth = self.tree.depth[: self.tree.decision_nodes]
        self.bounds = CallBounds.learn(self.tree) if args.caps else None
        if self.bounds is not None:
            self.bound, self.spent = self.bounds(lengths_at(self.tree), depth), path_costs(self.tree)
            self.pipelines = np.sort(self.spent[:, 1:], axis=None)
        self.everywhere = 1 / (self.tree.max_hops * len(self.tree.models) ** depth)

    def __call__(self, progress: float) -> dict[str, float]:
        """One iteration; what is logged of it. progress: share of the training that is done, in [0, 1)."""
        import torch
        from torch import nn

        args, nodes = self.args, np.arange(self.tree.decision_nodes)
        entropy_coef = args.entropy_start * (args.entropy_end / args.entropy_start) ** progress
        items = torch.randint(len(self.tree.items), (self.trees,), generator=self.generator).numpy()
        place = torch.randint(len(self.weights), (self.trees,), generator=self.generator).numpy()
        # Equal trees at equal weights are computed once, and count as often as they were drawn.
        distinct, times = np.unique(place * len(self.tree.items) + items, return_counts=True)
        place, items = np.divmod(distinct, len(self.tree.items))
        weight, often = self.weights[place], times / times.mean()
        seen = self.table(items[:, None], nodes)
        seen = self.table.inputs.with_weight(seen, np.repeat(weight[:, None], len(nodes), 1))
        if self.bounds is not None:
            quantiles = torch.rand(len(items), generator=self.generator, dtype=torch.float64).numpy()
            cap = self.pipelines[(quantiles * len(self.pipelines)).astype(int)]
            left = cap[:, None] - self.spent[items][:, nodes]
            seen = self.table.inputs.with_left(seen, left)
            fits, instead = self.bounds.fitting(self.bound[items], left, self.tree.depth[nodes])
        states = torch.from_numpy(seen)

        # --- advantages of all actions ---------------------------------------------------------------------------
        with torch.inference_mode():
            old = self.policy.logits(states).log_softmax(-1)
        chance = old.double().exp().numpy()
        done = chance if self.bounds is None else moved(chance, fits, instead)
        worth, reach = action_values(self.tree, items, done, weight)
        if self.bounds is not None:  # a call that is not made is worth what is done instead
            worth[..., :-1] = np.where(fits, worth[..., :-1], np.take_along_axis(worth, instead[..., None], -1))
        advantage = worth - (chance * worth).sum(axis=2, keepdims=True)
        come = (1 - args.explore) * reach / reach.sum(axis=1, keepdims=True) + args.explore * self.everywhere
        square = (come * (chance * advantage**2).sum(axis=2)).sum(axis=1)
        for number in np.unique(place).tolist():
            mean = np.average(square[place == number], weights=often[place == number])
            self.square[number] = mean if self.square[number] == 0 else 0.9 * self.square[number] + 0.1 * mean
        if args.norm_adv:
            advantage /= np.sqrt(self.square[place])[:, None, None] + SMALLEST_SPREAD
        counted = come * often[:, None]
        gain, visits = (torch.from_numpy(array.astype(np.float32)) for array in (advantage, counted))
        mass = visits[..., None] * old.exp()

        # --- learn -----------------------------------------------------------------------------------------------
        bounds = np.linspace(0, len(items), min(self.minibatches, len(items)) + 1).astype(int)
        clipfracs: list[float] = []
        for _ in range(args.update_epochs):
            order = torch.randperm(len(items), generator=self.generator)
            for begin, end in pairwise(bounds.tolist()):
                part = order[begin:end]
                log_chance = self.policy.logits(states[part]).log_softmax(-1)
                logratio = log_chance - old[part]
                ratio = logratio.exp()
                clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
                policy_loss = -(mass[part] * torch.min(gain[part] * ratio, gain[part] * clipped)).sum((1, 2)).mean()
                entropy = -(visits[part] * (log_chance.exp() * log_chance).sum(2)).sum(1).mean()
                loss = policy_loss - entropy_coef * entropy
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.policy.nets.actor.parameters(), args.max_grad_norm)
                self.optimizer.step()
                with torch.no_grad():
                    approx_kl = (mass[part] * ((ratio - 1) - logratio)).sum((1, 2)).mean()
                    clipfracs.append(float((mass[part] * ((ratio - 1).abs() > args.clip_coef)).sum((1, 2)).mean()))
            if args.target_kl is not None and approx_kl > args.target_kl:
                break
        return {
            "charts/episodic_return": float(often @ (chance[:, 0] * worth[:, 0]).sum(axis=1) / len(items)),
            "charts/episodic_length": float(
                often @ (reach[:, :, None] * chance[:, :, : len(self.tree.models)]).sum(axis=(1, 2)) / len(items)
            ),
            "losses/policy_loss": policy_loss.item(),
            "losses/entropy": entropy.item(),
            "losses/entropy_coef": entropy_coef,
            "losses/approx_kl": approx_kl.item(),
            "losses/clipfrac": float(np.mean(clipfracs)),
        }

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What it goes on from: arrays, and plain data."""
        return {"square": self.square}, {}

    def restore(self, arrays: Mapping[str, NDArray[Any]], data: dict[str, Any]) -> None:
        """Go on from there."""
        self.square = np.array(arrays["square"], np.float64)


class Sampled:
    """PPO as of Schulman et al. 2017: episodes are drawn, a critic learns what is to come, advantages are GAE's.

    For live models, where a tree is known only in part, and for the paper's preset.

    steps: environment steps of an iteration.
    """

    def __init__(
        self, args: Options, minibatches: int, table: StateTable, policy: Agent, optimizer: Any, weights: Any,
        generator: Any,
    ) -> None:  # fmt: skip
        from pools.mdp.vector_env import RoutingVectorEnv

        self.args, self.minibatches, self.table = args, minibatches, table
        self.policy, self.optimizer = policy, optimizer
        self.weights, self.generator, self.tree = weights, generator, table.tree
        # The states are looked up in the table, so the environment need not embed them.
        self.env = RoutingVectorEnv(
            self.tree, lambda contexts: np.zeros((len(contexts), 0), np.float32), args.num_envs, tuple(weights),
            policy.allow_stop,
        )  # fmt: skip
        self.env.reset(seed=generator.initial_seed())
        self.steps = args.num_envs * args.num_steps

    def _inputs(self, states: NDArray[np.int64]) -> Any:
        """The policy's inputs at the states of these numbers: a state is a cost weight, an item and a node."""
        import torch

        rest, nodes = np.divmod(states, self.tree.nodes)
        weight, items = np.divmod(rest, len(self.tree.items))
        return torch.from_numpy(self.table.inputs.with_weight(self.table(items, nodes), self.weights[weight]))

    def _distinct(self) -> tuple[NDArray[np.int64], Any, Any]:
        """The numbers of the states that the episodes are in, inputs of the distinct ones, and each episode's row."""
        import torch

        numbers = (self.env.weight * len(self.tree.items) + self.env.item) * self.tree.nodes + self.env.node
        distinct, slot = np.unique(numbers, return_inverse=True)
        return numbers, self._inputs(distinct), torch.from_numpy(slot)

    def __call__(self, progress: float) -> dict[str, float]:
        """One iteration; what is logged of it."""
        import torch
        from torch import nn

        args, env = self.args, self.env
        shape = (args.num_steps, args.num_envs)
        states = np.zeros(shape, np.int64)
        actions = torch.zeros(shape, dtype=torch.int64)
        logprobs, rewards, values, dones = (torch.zeros(shape) for _ in range(4))

        # --- roll out --------------------------------------------------------------------------------------------
        returns_seen: list[Any] = []
        lengths_seen: list[Any] = []
        for step in range(args.num_steps):
            states[step], distinct, slot = self._distinct()
            with torch.inference_mode():
                log_chance = self.policy.logits(distinct).log_softmax(1)[slot]
                # The first action whose cumulative probability is above a uniform draw.
                level = torch.rand((args.num_envs, 1), generator=self.generator)
                drawn = (log_chance.exp().cumsum(1)[:, :-1] <= level).sum(1, keepdim=True)
                # Rounding may leave the sum of the open actions below the draw: never let that open STOP.
                drawn = torch.minimum(drawn, log_chance.shape[1] - 1 - (log_chance[:, -1:] < -1e8).long())
                values[step] = self.policy.values(distinct)[slot]
            actions[step], logprobs[step] = drawn[:, 0], log_chance.gather(1, drawn)[:, 0]
            reward, ended = env.advance(actions[step].numpy())
            rewards[step], dones[step] = torch.from_numpy(reward), torch.from_numpy(ended)
            if ended.any():
                finished = env.episodes()
                returns_seen.append(finished["r"][ended])
                lengths_seen.append(finished["l"][ended])
                env.restart(ended)

        # --- advantages ------------------------------------------------------------------------------------------
        with torch.inference_mode():
            _, distinct, slot = self._distinct()
            next_value = self.policy.values(distinct)[slot]
        advantages, carried = torch.zeros(shape), torch.zeros(args.num_envs)
        for step in reversed(range(args.num_steps)):
            following = next_value if step == args.num_steps - 1 else values[step + 1]
            delta = rewards[step] + args.gamma * following * (1 - dones[step]) - values[step]
            carried = delta + args.gamma * args.gae_lambda * (1 - dones[step]) * carried
            advantages[step] = carried
        returns = advantages + values

        # --- learn -----------------------------------------------------------------------------------------------
        # A minibatch is all steps taken from a random share of the distinct states: so the networks see each state once
        # an epoch, however many episodes came through it. Minibatches hold equal numbers of states, not of steps.
        visited, place = np.unique(states, return_inverse=True)
        state_inputs = self._inputs(visited)
        slot = torch.from_numpy(place.reshape(-1))
        flat = [tensor.reshape(-1) for tensor in (actions, logprobs, advantages, returns, values)]
        bounds = np.linspace(0, len(visited), min(self.minibatches, len(visited)) + 1).astype(int)
        clipfracs: list[float] = []
        for _ in range(args.update_epochs):
            order = torch.randperm(len(visited), generator=self.generator)
            rank = torch.empty_like(order)
            rank[order] = torch.arange(len(order))
            rank_of_step = rank[slot]
            for begin, end in pairwise(bounds.tolist()):
                chosen = ((rank_of_step >= begin) & (rank_of_step < end)).nonzero()[:, 0]
                at = rank_of_step[chosen] - begin
                action, old_logprob, advantage, target, old_value = (t[chosen] for t in flat)
                seen = state_inputs[order[begin:end]]
                log_chance_of = self.policy.logits(seen).log_softmax(1)
                log_chance, new_value = log_chance_of[at], self.policy.values(seen)[at]
                logratio = log_chance.gather(1, action[:, None])[:, 0] - old_logprob
                ratio = logratio.exp()
                with torch.no_grad():
                    # Estimators of KL(old, new) by Schulman, http://joschu.net/blog/kl-approx.html
                    old_approx_kl, approx_kl = (-logratio).mean(), ((ratio - 1) - logratio).mean()
                    clipfracs.append(float(((ratio - 1).abs() > args.clip_coef).float().mean()))
                if args.norm_adv:
                    advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
                clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
                policy_loss = -torch.min(advantage * ratio, advantage * clipped).mean()
                value_loss = (new_value - target).square()
                if args.clip_vloss:
                    near = old_value + (new_value - old_value).clamp(-args.clip_coef, args.clip_coef)
                    value_loss = torch.max(value_loss, (near - target).square())
                value_loss = 0.5 * value_loss.mean()
                entropy = -(log_chance_of.exp() * log_chance_of).sum(1)[at].mean()
                loss = policy_loss - args.ent_coef * entropy + args.vf_coef * value_loss
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.policy.nets.parameters(), args.max_grad_norm)
                self.optimizer.step()
            if args.target_kl is not None and approx_kl > args.target_kl:
                break
        spread = returns.var()
        logged = {
            "losses/value_loss": value_loss.item(),
            "losses/policy_loss": policy_loss.item(),
            "losses/entropy": entropy.item(),
            "losses/old_approx_kl": old_approx_kl.item(),
            "losses/approx_kl": approx_kl.item(),
            "losses/clipfrac": float(np.mean(clipfracs)),
            "losses/explained_variance": float(1 - (returns - values).var() / spread) if spread > 0 else 0.0,
        }
        if returns_seen:
            logged |= {
                "charts/episodic_return": float(np.concatenate(returns_seen).mean()),
                "charts/episodic_length": float(np.concatenate(lengths_seen).mean()),
            }
        return logged

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Where all episodes stand, and the generator that draws items."""
        return self.env.state(), self.env.random_state()

    def restore(self, arrays: Mapping[str, NDArray[Any]], data: dict[str, Any]) -> None:
        """Go on from there."""
        self.env.restore(arrays, data)


@contextmanager
def training_bar(shown: bool) -> Iterator[Report]:
    """A bar on standard error: steps, sampled return, steps per second, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not shown)
    task = bar.add_task("", total=None)

    def report(done: int, total: int, said: str) -> None:
        bar.update(task, completed=done, total=total, description=said)

    with bar:
        yield report


def plain(options: Options) -> dict[str, Any]:
    """The hyper-parameters alone, as JSON."""
    return {field.name: getattr(options, field.name) for field in fields(Options)}


def _identity(options: Options, tree: Tree, validation: Tree | None, request: RouterRequest) -> str:
    """Hash of all that a training depends on, so that it is not resumed on something else."""
    seen = []
    for part in (tree, validation):
        if part is not None:
            items = [[item.task, item.doc_id, item.query] for item in part.items]
            # A live tree fills up while it is trained on; a recorded one is what it is.
            arrays = (part.score, part.cost, part.context_id) if part.complete else ()
            responses = [context.responses for context in part.contexts] if part.complete else []
            known = [array.tobytes().hex() for array in arrays]
            seen.append([part.models, part.max_hops, part.answers, items, responses, known])
    goal = [request.allow_stop, request.cost_weight, request.cost_weights, request.seed, asdict(tree.cost_model)]
    return content_hash(plain(options), goal, seen)


def _save(path: Path, identity: str, iteration: int, kept: tuple[float, int, Any], *parts: Any) -> None:
    """Everything that training goes on from, as safetensors, whole or not at all.

    kept: the best value so far, in which iteration it was found, and its policy.
    """
    best_value, kept_at, best = kept
    policy, average, optimizer, learn, generator = parts
    tensors = {f"policy.{name}": tensor for name, tensor in policy.nets.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.nets.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    tensors["generator"] = generator.get_state()
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    learnt, random = learn.state()
    arrays |= {f"learn.{name}": np.asarray(array) for name, array in learnt.items()}
    # -inf, if no policy was chosen yet, is no number of JSON.
    known = best_value if best_value > -float("inf") else None
    meta = {"identity": identity, "iteration": iteration, "best_value": known, "kept_at": kept_at, "random": random}
    write_tensors(path, arrays, _STATE, meta)


def _restore(
    path: Path, identity: str, policy: Any, average: Any, optimizer: Any, learn: Any, generator: Any
) -> tuple[int, float, int, Any]:
    """Put the state back; the iteration to go on with, the best value so far, its iteration, and its policy."""
    import torch

    try:
        arrays, meta = read_tensors(path, _STATE)
    except ValueError as error:
        raise UserError(f"{path} is not a training state ({error}); remove it to start anew") from None
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    if meta.get("identity") != identity:
        raise UserError(f"{path} is of a training with other arguments or items; name another --out, or remove it")

    def below(prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    policy.nets.load_state_dict(below("policy."))
    average.nets.load_state_dict(below("average."))
    states: dict[int, dict[str, Any]] = {}
    for name, tensor in below("optimizer.").items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    learn.restore({name: tensor.numpy() for name, tensor in below("learn.").items()}, meta["random"])
    generator.set_state(tensors["generator"])
    best_value = -float("inf") if meta["best_value"] is None else meta["best_value"]
    return meta["iteration"] + 1, best_value, meta["kept_at"], below("best.")


def request_for(
    args: Args,
    train: Tree,
    validation: Tree | None,
    report: Report | None = None,
    facts: Mapping[str, Any] | None = None,
    log: Log | None = None,
) -> RouterRequest:
    """What the command line asks for, on trees. Raises UserError if its checkpoint or state cannot be there."""
    training = Training(
        state=state_beside(args.out, args.resume),
        resume=args.resume,
        log=log,
        report=report,
        facts=facts or {},
    )
    return RouterRequest(
        models=train.models,
        max_hops=train.max_hops,
        allow_stop=args.allow_stop,
        cost_model=train.cost_model,
        cost_weight=args.cost_weight,
        cost_weights=args.cost_weights,
        seed=args.seed,
        weights=args.weights,
        train=train,
        validation=validation,
        training=training,
    )


@contextmanager
def _tracked(args: Args, source: Mapping[str, Any]) -> Iterator[Any]:
    """The run of wandb that the command line asks for; None if it asks for none."""
    where = tracking_asked(args)
    if where is None:
        yield None
        return
    settings = {**plain(args), "seed": args.seed, "cost_weight": args.cost_weight, "source": source}
    with tracked(where, "train", f"ppo_hierrouter__{args.seed}__{int(time.time())}", None, settings) as run:
        yield run


def main() -> None:
    """Train on a recording from the command line."""
    import tyro

    from pools.data.recording import load_recording
    from pools.numbers import number_arguments
    from routers.registry import header_of, teach

    try:
        args = tyro.cli(Args, prog="python -m routers.ppo_hierrouter", description=__doc__, registry=number_arguments())
        recording = load_recording(args.recording, args.cost)
        tree = recording.tree
        if args.max_hops is not None and not 1 <= args.max_hops <= tree.max_hops:
            raise UserError(
                f"--max-hops {args.max_hops}: the recording has {tree.max_hops} hops; ask for 1 to that many"
            )
        tree = tree if args.max_hops is None else tree.shortened(args.max_hops)
        source = {"recording": args.recording.name, "suite": recording.manifest.get("suite")}
        parts = tree.select("train"), tree.select("validation")
        if args.out is not None and not args.force:
            asked = request_for(args, *parts, facts={"source": source})
            check_replaced(args.out, header_of("hierrouter", asked, plain(args)))
        with _tracked(args, source) as run, training_bar(shown=sys.stderr.isatty()) as report:
            log = None if run is None else lambda _, step, figures: run.log(figures, step=step)
            taught = teach("hierrouter", request_for(args, *parts, report, {"source": source}, log), plain(args))
            if args.out is not None:
                taught.save(args.out)
                if run is not None:
                    log_checkpoint(run, args.out, f"hierrouter-{source['recording']}", taught.header.model_dump())
    except UserError as error:
        print(f"ppo_hierrouter: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"ppo_hierrouter: {error.filename or 'the file system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ppo_hierrouter: stopped; --resume goes on from the last state written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
