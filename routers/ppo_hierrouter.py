"""Train HierRouter with PPO on a recorded tree: one file, top to bottom.

    python -m routers.ppo_hierrouter --recording results/recordings/lightweight-offline --out runs/policy.safetensors

PPO is that of Schulman et al. 2017 (arXiv 1707.06347) with the details of Huang et al. 2022. The environment is a tree
that is already known (or is asked for with live models behind the same seam), so episodes are array gathers and every
distinct context is embedded once. What the paper does not state, and that is every hyper-parameter, is our choice.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from pools.errors import UserError
from pools.mdp.optimum import path_costs, solve
from pools.mdp.policy_value import expectation
from pools.mdp.tree import Tree
from pools.types import content_hash
from routers._threads import one_thread
from routers.checkpoint import read_tensors, state_beside, write_tensors
from routers.encoders.base import DEFAULT, ContextEncoder, Part, build_encoder
from routers.options import NonNegative
from routers.router import RouterRequest, Training

Share = Annotated[float, Field(ge=0, le=1)]
_STATE = "training"  # what the state that a training goes on from is called in its file


@dataclass(frozen=True)
class Options:
    """Every hyper-parameter."""

    preset: Literal["default", "paper"] = "default"
    """paper: models are the only actions, every episode has exactly L hops, and the state is context embedding, hop and
    cost; it overrides STOP, sees and several cost weights."""
    sees: tuple[Part, ...] = DEFAULT
    """What the policy sees of a state besides hop and cost."""
    encoder: str = "hashing"
    """Encoder of the contexts: hashing, sentence, or sentence:PATH."""
    hidden: PositiveInt = 64
    """Width of the two hidden layers of actor and critic."""
    eval_every: NonNegativeInt = 5
    """Iterations between two exact evaluations on train and validation items; 0: only the last."""
    select: bool = True
    """Keep the policy with the best exact value on validation items, instead of the last one."""
    save_every: PositiveInt = 20
    """Iterations between two writes of the state that a training goes on from."""

    total_timesteps: PositiveInt = 600_000
    """Environment steps (hops) in all."""
    num_envs: PositiveInt = 1024
    """Episodes that run side by side."""
    num_steps: PositiveInt = 8
    """Steps of each environment per iteration."""
    learning_rate: NonNegative = 1e-3
    """Adam's step size."""
    anneal_lr: bool = True
    """Let the step size fall linearly to zero."""
    gamma: Share = 1.0
    """Discount; episodes have at most L hops, so none is needed."""
    gae_lambda: Share = 0.95
    """Lambda of generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438)."""
    num_minibatches: PositiveInt = 4
    """Minibatches per epoch."""
    update_epochs: PositiveInt = 4
    """Epochs over each iteration's batch."""
    norm_adv: bool = True
    """Normalise advantages within each minibatch."""
    clip_coef: NonNegative = 0.2
    """How far the probability ratio may move."""
    clip_vloss: bool = False
    """Clip the value loss like the policy loss."""
    ent_coef: NonNegative = 0.01
    """Weight of the entropy bonus."""
    vf_coef: NonNegative = 0.5
    """Weight of the value loss."""
    max_grad_norm: NonNegative = 0.5
    """Norm that gradients are clipped to."""
    target_kl: NonNegative | None = None
    """Leave the epochs of an iteration once the approximate KL divergence is above this."""

    def __post_init__(self) -> None:
        if self.preset == "paper":
            object.__setattr__(self, "sees", DEFAULT)


@dataclass(frozen=True)
class Args(Options):
    """What the command line takes besides."""

    recording: Path = Path("results/recordings/lightweight-offline")
    """Recording to train on: its train items; its validation items choose the checkpoint."""
    out: Path | None = None
    """Checkpoint to write (safetensors); beside it the state that --resume goes on from. Nothing is written without."""
    resume: bool = False
    """Go on from the state beside `out` where an earlier run of the same arguments was stopped."""
    seed: int = 1
    """Seed of the weights, the items, the actions and the minibatches."""
    track: bool = False
    """Log to wandb; WANDB_MODE=offline works."""
    wandb_project_name: str = "hierrouter-harness"
    """The wandb project."""
    wandb_entity: str | None = None
    """The wandb team."""
    max_hops: int | None = None
    """Horizon L; by default the recording's."""
    allow_stop: bool = True
    """Whether the policy may stop before the last hop; the paper's policy may not (--no-allow-stop)."""
    cost: str = "paper"
    """Cost model: paper, dollars, or FILE.py with your own."""
    cost_weight: float = 0.1
    """The lambda of the reward: quality given up for one unit of cost."""
    cost_weights: tuple[float, ...] = ()
    """Lambdas to draw from, one for each episode, and to show to the policy: one training then serves them all, and
    those between them (cost_weight is the one that it is used with by default). None: cost_weight alone, not shown."""
    weights: Path | None = None
    """Folder to look for a sentence transformer in, by its hub name."""


@dataclass(frozen=True)
class StateFeatures:
    """Turns hop, cost, the models called so far and the cost weight into numbers of about unit size.

    max_hops: `L`. models: `M`. cost_scale: what costs are divided by, about the cost of a whole episode.
    sees_models: whether the last model and the set of models called so far are shown; the paper's state has neither.
    sees_weight: whether the cost weight (lambda) of the episode is shown, so that one policy serves many.
    """

    max_hops: int
    models: int
    cost_scale: float
    sees_models: bool = False
    sees_weight: bool = False

    @property
    def dimension(self) -> int:
        """How many numbers there are."""
        return self.max_hops + 1 + 2 * self.models * self.sees_models + self.sees_weight

    def __call__(
        self, hop: ArrayLike, cost: ArrayLike, actions: NDArray[np.int64], cost_weight: ArrayLike
    ) -> NDArray[np.float32]:
        """float32 `[B, dimension]` of hops `[B]`, costs `[B]`, actions `[B, L]` padded with -1, and cost weights `[B]`.

        The first column is 1 at hop 0 and 0 later.
        """
        hops = np.asarray(hop, np.int64)
        columns = [np.eye(self.max_hops)[hops], np.asarray(cost, np.float64)[:, None] / self.cost_scale]
        if self.sees_models:
            called = np.zeros((len(hops), self.models + 1))  # the last column collects the padding
            np.put_along_axis(called, np.where(actions < 0, self.models, actions), 1.0, axis=1)
            last = np.zeros_like(called)
            place = np.where(hops > 0, actions[np.arange(len(hops)), np.maximum(hops - 1, 0)], self.models)
            last[np.arange(len(hops)), place] = 1.0
            columns += [called[:, :-1], last[:, :-1]]
        if self.sees_weight:
            weights = np.broadcast_to(np.asarray(cost_weight, np.float64), hops.shape)
            columns.append(np.log1p(weights * self.cost_scale)[:, None])
        return np.concatenate(columns, axis=1).astype(np.float32)


class Agent:
    """Actor and critic: two small MLPs over the context embedding and the state's features.

    The paper states neither sizes nor activations: two hidden layers of tanh are our choice.

    dimension: of the embedding. features: how many, as of `StateFeatures`. models: `M`. allow_stop: whether action `M`
    is STOP, which is never open at hop 0.
    """

    def __init__(self, dimension: int, features: int, models: int, allow_stop: bool, hidden: int) -> None:
        from torch import nn

        self.models, self.allow_stop = models, allow_stop
        inputs, actions = dimension + features, models + int(allow_stop)
        self.nets = nn.ModuleDict(
            {"actor": _mlp(inputs, hidden, actions, 0.01), "critic": _mlp(inputs, hidden, 1, 1.0)}
        )

    def __call__(self, embedding: Any, features: Any) -> tuple[Any, Any]:
        """Logits `[B, A]` and values `[B]` from embeddings `[B, d]` and features `[B, f]`."""
        import torch

        seen = torch.cat([embedding, features], dim=1)
        logits = self.nets.actor(seen)
        if self.allow_stop:
            closed = torch.zeros_like(logits, dtype=torch.bool)
            closed[:, self.models] = features[:, 0] == 1  # hop 0
            logits = logits.masked_fill(closed, -1e9)
        return logits, self.nets.critic(seen).squeeze(1)


def _mlp(inputs: int, hidden: int, outputs: int, gain: float) -> Any:
    """Orthogonal weights and zero biases, as is usual for PPO (Huang et al. 2022, "The 37 implementation details")."""
    from torch import nn

    layers = [nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)]
    for layer, scale in zip(layers, (math.sqrt(2), math.sqrt(2), gain), strict=True):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


@one_thread()
def train(
    args: Options, tree: Tree, validation: Tree | None, request: RouterRequest
) -> tuple[Agent, StateFeatures, ContextEncoder]:
    """Train on the items of `tree`, choose on those of `validation`; the agent, and what turns states into its inputs.

    The same options, trees, request and machine give the same agent, bit for bit, resumed or not.
    """
    import torch
    from torch import nn

    from pools.mdp.vector_env import RoutingVectorEnv

    allow_stop, cost_weight, training = request.allow_stop, request.cost_weight, request.training
    if not {"query", "response"} & set(args.sees):
        raise UserError(f"--sees {' '.join(args.sees)}: expected query, response or both among them")
    batch_size = args.num_envs * args.num_steps
    num_iterations = max(1, args.total_timesteps // batch_size)

    # --- the environment, the policy, the optimizer --------------------------------------------------------------
    # The encoder is fitted on what a policy can see of train items; over live models only the queries are known yet.
    seen = np.unique(tree.context_id[:, : tree.decision_nodes])
    contexts = [tree.contexts[c] for c in seen if c >= 0]
    embed = ContextEncoder(build_encoder(args.encoder, contexts, request.seed, request.weights), args.sees)
    cost_weights = np.array(request.cost_weights or (cost_weight,))
    env = RoutingVectorEnv(tree, embed, args.num_envs, tuple(cost_weights), allow_stop)
    torch.manual_seed(request.seed)
    generator = torch.Generator().manual_seed(request.seed)
    highest = float(path_costs(tree)[:, tree.level(tree.max_hops)].max()) if tree.complete else 0.0
    rates = (*(tree.cost_model.input_rate or ()), *(tree.cost_model.output_rate or ()), 1e-12)
    cost_scale = highest or max(rates) * 1000 * tree.max_hops
    features = StateFeatures(
        tree.max_hops, len(tree.models), cost_scale, "models" in args.sees, bool(request.cost_weights)
    )
    policy = Agent(embed.dimension, features.dimension, len(tree.models), allow_stop, args.hidden)
    pipelines = tree.pipelines()
    optimizer = torch.optim.Adam(policy.nets.parameters(), lr=args.learning_rate, eps=1e-5, fused=True)

    # --- exact evaluation ----------------------------------------------------------------------------------------
    complete = {name: t for name, t in (("train", tree), ("validation", validation)) if t is not None and t.complete}
    optima = {name: solve(t, cost_weight, allow_stop).value.mean() for name, t in complete.items()}
    # The value of the best single model, called once and stopped at, which is open to it whatever the policy may do.
    floors = {
        name: (t.score - cost_weight * path_costs(t))[:, t.level(1)].mean(axis=0).max() for name, t in complete.items()
    }
    tables = {name: torch.from_numpy(embed(t.contexts)) for name, t in complete.items()}

    def attained(name: str, weight: float, greedy: bool) -> tuple[float, float]:
        """Expected quality and cost of the stochastic or the greedy policy at one cost weight."""
        known = complete[name]

        def choose(items: Any, nodes: Any, cost: Any) -> Any:
            rows = torch.from_numpy(known.context_id[items, nodes].astype(np.int64))
            shown = torch.from_numpy(features(known.depth[nodes], cost, pipelines[nodes], weight))
            with torch.inference_mode():
                logits, _ = policy(tables[name][rows], shown)
            chance = np.zeros((len(items), len(known.models) + 1))
            if greedy:
                chance[np.arange(len(items)), logits.argmax(1).numpy()] = 1.0
            else:
                chance[:, : logits.shape[1]] = torch.softmax(logits.double(), 1).numpy()
            return chance

        found = expectation(known, choose)
        return float(found.quality.mean()), float(found.cost.mean())

    def exact(name: str) -> dict[str, float]:
        """What the stochastic policy attains at `cost_weight`; mean value of the greedy one at all that are drawn."""
        quality, cost = attained(name, cost_weight, greedy=False)
        greedy = {weight: attained(name, weight, greedy=True) for weight in cost_weights.tolist()}
        value, gap = quality - cost_weight * cost, optima[name] - floors[name]
        return {
            "quality": quality,
            "cost": cost,
            "regret": float(optima[name] - value),
            # Of a smaller gap a share says nothing.
            **({"gap_closed": float((value - floors[name]) / gap)} if gap >= 0.005 else {}),
            "greedy_value": float(np.mean([q - weight * c for weight, (q, c) in greedy.items()])),
        }

    # --- start, or go on -----------------------------------------------------------------------------------------
    env.reset(seed=request.seed)
    first, best_value = 1, -float("inf")
    best = {name: tensor.clone() for name, tensor in policy.nets.state_dict().items()}
    identity = _identity(args, tree, validation, request)
    if training.resume and training.state is not None:
        first, best_value, best = _restore(training.state, identity, policy, optimizer, env, generator)
    run = None
    if training.track is not None:
        import wandb

        settings = {**plain(args), "seed": request.seed, "cost_weight": cost_weight, **training.facts}
        name = f"ppo_hierrouter__{request.seed}__{int(time.time())}"
        run = wandb.init(name=name, config=settings, **training.track)
    start_time = time.perf_counter()

    # --- storage -------------------------------------------------------------------------------------------------
    # Only what is distinct goes through the networks: a state is a cost weight, an item and a node of its tree.
    spent = np.zeros(tree.known.shape)

    def numbers() -> Any:
        """`[B]` numbers of the states that the episodes are in."""
        return (env.weight * len(tree.items) + env.item) * tree.nodes + env.node

    def inputs(states: Any) -> tuple[Any, Any]:
        """The policy's arguments at the states of these numbers."""
        rest, nodes = np.divmod(states, tree.nodes)
        weight, items = np.divmod(rest, len(tree.items))
        shown = features(tree.depth[nodes], spent[items, nodes], pipelines[nodes], cost_weights[weight])
        return torch.from_numpy(env.table()[tree.context_id[items, nodes]]), torch.from_numpy(shown)

    def distinct_states() -> tuple[tuple[Any, Any], Any]:
        """The policy's arguments at the distinct states that the episodes are in, and each episode's row of them."""
        spent[env.item, env.node] = env.cost
        distinct, slot = np.unique(numbers(), return_inverse=True)
        return inputs(distinct), torch.from_numpy(slot)

    shape = (args.num_steps, args.num_envs)
    states = np.zeros(shape, np.int64)
    actions = torch.zeros(shape, dtype=torch.int64)
    logprobs, rewards, values, dones = (torch.zeros(shape) for _ in range(4))

    for iteration in range(first, num_iterations + 1):
        if args.anneal_lr:
            optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - (iteration - 1) / num_iterations)

        # --- roll out ----------------------------------------------------------------------------------------------
        returns_seen: list[Any] = []
        lengths_seen: list[Any] = []
        for step in range(args.num_steps):
            states[step] = numbers()
            distinct, slot = distinct_states()
            with torch.inference_mode():
                logits, value_of = policy(*distinct)
                log_chance = logits.log_softmax(1)[slot]
                # The first action whose cumulative probability is above a uniform draw.
                level = torch.rand((args.num_envs, 1), generator=generator)
                drawn = (log_chance.exp().cumsum(1)[:, :-1] <= level).sum(1, keepdim=True)
                # Rounding may leave the sum of the open actions below the draw: never let that open STOP.
                drawn = torch.minimum(drawn, log_chance.shape[1] - 1 - (log_chance[:, -1:] < -1e8).long())
            actions[step], logprobs[step] = drawn[:, 0], log_chance.gather(1, drawn)[:, 0]
            values[step] = value_of[slot]
            reward, ended = env.advance(actions[step].numpy())
            rewards[step], dones[step] = torch.from_numpy(reward), torch.from_numpy(ended)
            if ended.any():
                finished = env.episodes()
                returns_seen.append(finished["r"][ended])
                lengths_seen.append(finished["l"][ended])
                env.restart(ended)

        # --- advantages --------------------------------------------------------------------------------------------
        with torch.inference_mode():
            distinct, slot = distinct_states()
            next_value = policy(*distinct)[1][slot]
        advantages, carried = torch.zeros(shape), torch.zeros(args.num_envs)
        for step in reversed(range(args.num_steps)):
            following = next_value if step == args.num_steps - 1 else values[step + 1]
            delta = rewards[step] + args.gamma * following * (1 - dones[step]) - values[step]
            carried = delta + args.gamma * args.gae_lambda * (1 - dones[step]) * carried
            advantages[step] = carried
        returns = advantages + values

        # --- learn -------------------------------------------------------------------------------------------------
        # A minibatch is all steps taken from a random share of the distinct states: so the networks see each state once
        # an epoch, however many episodes came through it. Minibatches hold equal numbers of states, not of steps.
        visited, place = np.unique(states, return_inverse=True)
        state_inputs = inputs(visited)
        slot = torch.from_numpy(place.reshape(-1))
        flat = [tensor.reshape(-1) for tensor in (actions, logprobs, advantages, returns, values)]
        bounds = np.linspace(0, len(visited), min(args.num_minibatches, len(visited)) + 1).astype(int)
        clipfracs: list[float] = []
        for _ in range(args.update_epochs):
            order = torch.randperm(len(visited), generator=generator)
            rank = torch.empty_like(order)
            rank[order] = torch.arange(len(order))
            rank_of_step = rank[slot]
            for begin, end in pairwise(bounds.tolist()):
                chosen = ((rank_of_step >= begin) & (rank_of_step < end)).nonzero()[:, 0]
                at = rank_of_step[chosen] - begin
                action, old_logprob, advantage, target, old_value = (t[chosen] for t in flat)
                logits, value_of = policy(*(tensor[order[begin:end]] for tensor in state_inputs))
                log_chance_of = logits.log_softmax(1)
                log_chance, new_value = log_chance_of[at], value_of[at]
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
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(policy.nets.parameters(), args.max_grad_norm)
                optimizer.step()
            if args.target_kl is not None and approx_kl > args.target_kl:
                break

        # --- look, log, save ---------------------------------------------------------------------------------------
        last = iteration == num_iterations
        measured: dict[str, dict[str, float]] = {}
        if last or (args.eval_every and iteration % args.eval_every == 0):
            measured = {name: exact(name) for name in complete}
            value = measured.get("validation", measured.get("train", {})).get("greedy_value")
            if value is None or not args.select or value > best_value:
                best_value = -float("inf") if value is None else value
                best = {name: tensor.clone() for name, tensor in policy.nets.state_dict().items()}
        spread = returns.var()
        speed = (iteration - first + 1) * batch_size / (time.perf_counter() - start_time)
        episodic = np.concatenate(returns_seen) if returns_seen else np.zeros(0)
        if training.report is not None:
            said = f"return {episodic.mean() if len(episodic) else 0.0:.3f}, {speed:,.0f} steps/s"
            training.report(iteration, num_iterations, said)
        if run is not None:
            logged = {
                "charts/learning_rate": optimizer.param_groups[0]["lr"],
                "charts/SPS": speed,
                "losses/value_loss": value_loss.item(),
                "losses/policy_loss": policy_loss.item(),
                "losses/entropy": entropy.item(),
                "losses/old_approx_kl": old_approx_kl.item(),
                "losses/approx_kl": approx_kl.item(),
                "losses/clipfrac": float(np.mean(clipfracs)),
                "losses/explained_variance": float(1 - (returns - values).var() / spread) if spread > 0 else 0.0,
            }
            if len(episodic):
                logged |= {
                    "charts/episodic_return": float(episodic.mean()),
                    "charts/episodic_length": float(np.concatenate(lengths_seen).mean()),
                }
            logged |= {f"exact/{name}_{key}": v for name, figures in measured.items() for key, v in figures.items()}
            run.log(logged, step=iteration * batch_size)
        if training.state is not None and (last or iteration % args.save_every == 0):
            _save(training.state, identity, iteration, best_value, best, policy, optimizer, env, generator)
    policy.nets.load_state_dict(best)
    if run is not None:
        run.finish()
    return policy, features, embed


@contextmanager
def training_bar(shown: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error: iterations, sampled return, steps per second, time left."""
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
            seen.append([part.models, part.max_hops, items, [array.tobytes().hex() for array in arrays]])
    goal = [request.allow_stop, request.cost_weight, request.cost_weights, request.seed, asdict(tree.cost_model)]
    return content_hash(plain(options), goal, seen)


def _save(path: Path, identity: str, iteration: int, best_value: float, best: Any, *parts: Any) -> None:
    """Everything that training goes on from, as safetensors, whole or not at all."""
    policy, optimizer, env, generator = parts
    tensors = {f"policy.{name}": tensor for name, tensor in policy.nets.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    tensors["generator"] = generator.get_state()
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    arrays |= {f"env.{name}": np.asarray(array) for name, array in env.state().items()}
    # -inf, if no policy was chosen yet, is no number of JSON.
    known = best_value if best_value > -float("inf") else None
    meta = {"identity": identity, "iteration": iteration, "best_value": known, "random": env.random_state()}
    write_tensors(path, arrays, _STATE, meta)


def _restore(
    path: Path, identity: str, policy: Any, optimizer: Any, env: Any, generator: Any
) -> tuple[int, float, Any]:
    """Put the state back; the iteration to go on with, the best value so far, and its policy."""
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
    states: dict[int, dict[str, Any]] = {}
    for name, tensor in below("optimizer.").items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    env.restore({name: tensor.numpy() for name, tensor in below("env.").items()}, meta["random"])
    generator.set_state(tensors["generator"])
    best_value = -float("inf") if meta["best_value"] is None else meta["best_value"]
    return meta["iteration"] + 1, best_value, below("best.")


def request_for(
    args: Args,
    train: Tree,
    validation: Tree | None,
    report: Callable[[int, int, str], None] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> RouterRequest:
    """What the command line asks for, on trees. Raises UserError if its checkpoint or state cannot be there."""
    training = Training(
        state=state_beside(args.out, args.resume),
        resume=args.resume,
        track={"project": args.wandb_project_name, "entity": args.wandb_entity} if args.track else None,
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


def main() -> None:
    """Train on a recording from the command line."""
    import tyro

    from pools.numbers import number_arguments

    args = tyro.cli(Args, prog="python -m routers.ppo_hierrouter", description=__doc__, registry=number_arguments())
    from pools.data.recording import load_recording
    from routers.registry import teach

    try:
        recording = load_recording(args.recording, args.cost)
        tree = recording.tree
        if args.max_hops is not None and not 1 <= args.max_hops <= tree.max_hops:
            raise UserError(
                f"--max-hops {args.max_hops}: the recording has {tree.max_hops} hops; ask for 1 to that many"
            )
        tree = tree if args.max_hops is None else tree.shortened(args.max_hops)
        source = {"recording": args.recording.name, "suite": recording.manifest.get("suite")}
        with training_bar(shown=sys.stderr.isatty()) as report:
            parts = tree.select("train"), tree.select("validation")
            request = request_for(args, *parts, report, {"source": source})
            taught = teach("hierrouter", request, plain(args))
        if args.out is not None:
            taught.save(args.out)
    except UserError as error:
        print(f"ppo_hierrouter: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"ppo_hierrouter: {error.filename or 'the file system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ppo_hierrouter: stopped; --resume goes on from the last state written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
