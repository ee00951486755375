"""What `serve` and `lm-eval` take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pools.cost import COST_WEIGHT


@dataclass(frozen=True)
class Serve:
    """Serve a router as a model of the OpenAI chat API: /v1/chat/completions, /v1/models, /metrics, /health.

    Needs the extra `serve`. A bearer key is read from the variable HARNESS_API_KEY or from --api-key-file.
    """

    router: str = "hierrouter"
    """The router, by name; one that learns is what ships for --seed, or --checkpoint, or learns at the start."""
    pool: str = "lightweight"
    """Pool of candidate models: a name or a YAML file."""
    weights: Path | None = None
    """Folder that holds model folders named as on the Hugging Face hub."""
    recording: Path | None = None
    """Answer from this recording instead of the models: only its items, for tests of clients and of load."""
    train_on: Path | None = None
    """Recording that the router learns from at the start, with the defaults of its options, of models of the same names
    as the pool's; by default, if nothing that has learnt ships, the pool's own, if it ships."""
    checkpoint: Path | None = None
    """Checkpoint of a trained router."""
    seed: int = 1
    """Seed of the shipped policy, and of what a stochastic router draws."""
    cost: str = "paper"
    """Cost model: paper, dollars, or FILE.py with your own."""
    cost_weight: float = COST_WEIGHT
    """The lambda that the router weighs costs with."""
    max_hops: int | None = None
    """Horizon L; by default the checkpoint's, else 3."""
    store: Path | None = None
    """Transition store that keeps every query and response; without one nothing is kept."""
    name: str | None = None
    """What the model is called; by default as the router."""
    log: Path | None = None
    """File to append every answered query to, with its answer, cost, seconds and propensity, as JSON lines that import
    and estimate read; without one nothing is logged."""
    shadow: str | None = None
    """Another router, which answers nobody: what it would have done first goes into --log, after the reply."""
    shadow_checkpoint: Path | None = None
    """Checkpoint of the shadow router."""
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
class LmEval:
    """Run lm-eval, which then knows one model more, `routed`: a router over a pool (docs/guides/lm-eval.md).

    All arguments are lm-eval's own; python -m harness lm-eval --help lists them.
    """

    arguments: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """What lm-eval takes."""
