"""`Gen` answered by the models themselves, through lm-eval's model classes."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pools.errors import UserError
from pools.pool import CandidateModel, Pool
from pools.store import TransitionStore
from pools.template import render
from pools.types import Context, Generation, GenerationSettings
from pools.weights import find_weights


@dataclass(frozen=True)
class Batch:
    """What a batch was, for a progress bar.

    model: its name. done: requests answered so far, this batch included, of `total` that one call of
    `generate` had to ask for. tokens_in, tokens_out: of the batch. seconds: it took.
    """

    model: str
    done: int
    total: int
    tokens_in: int
    tokens_out: int
    seconds: float


Progress = Callable[[Batch], None]


class LiveGenerator:
    """The models of a pool, each loaded when it is first asked.

    Requests are sorted by length and run in batches of the model's `batch_size`; every batch is written to the store
    before the next begins, and what the store holds is not asked for again.

    resident: how many models stay loaded; the one used longest ago makes room.
    """

    def __init__(
        self,
        pool: Pool,
        weights_dir: Path | None = None,
        store: TransitionStore | None = None,
        resident: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.pool, self.weights_dir, self.store, self.progress = pool, weights_dir, store, progress
        self._resident = resident or len(pool.models)
        self._loaded: dict[int, Any] = {}
        self._fingerprints: dict[int, str] = {}

    def generate(self, model: int, requests: Sequence[tuple[Context, GenerationSettings]]) -> list[Generation]:
        """Answers of model number `model`, in the order of the requests."""
        answers: list[Generation | None] = [None] * len(requests)
        if self.store is not None:
            answers = [self.store.get(self._fingerprint(model), settings, context) for context, settings in requests]
        missing = [number for number, answer in enumerate(answers) if answer is None]
        if missing:
            lm, declared = self.language_model(model), self.pool.models[model]
            texts = {number: self.text(model, requests[number][0]) for number in missing}
            done = 0
            # A batch shares its settings; the longest come first, so that memory runs out early if at all.
            missing.sort(key=lambda n: (repr(requests[n][1]), -len(texts[n]), texts[n]))
            for batch in _batches(missing, declared.batch_size, lambda n: requests[n][1]):
                made = _run_batch(lm, declared, [texts[n] for n in batch], requests[batch[0]][1])
                if self.store is not None:
                    entries = [(*requests[n], generation) for n, generation in zip(batch, made, strict=True)]
                    made = self.store.put(self._fingerprint(model), entries)
                for number, generation in zip(batch, made, strict=True):
                    answers[number] = generation
                done += len(batch)
                if self.progress:
                    tokens_in, tokens_out = sum(g.tokens_in for g in made), sum(g.tokens_out for g in made)
                    seconds = sum(g.seconds for g in made)
                    self.progress(Batch(declared.name, done, len(missing), tokens_in, tokens_out, seconds))
        return [answer for answer in answers if answer is not None]

    def text(self, model: int, context: Context) -> str:
        """What the model reads: its template, and its tokenizer's chat template where the pool file asks for that."""
        declared = self.pool.models[model]
        text = render(declared.template, context)
        if not declared.chat_template:
            return text
        return str(self.language_model(model).apply_chat_template([{"role": "user", "content": text}]))

    def language_model(self, model: int) -> Any:
        """The lm-eval model, loaded now if need be. Raises UserError where its weights or its type are missing."""
        if model not in self._loaded:
            while len(self._loaded) >= self._resident:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[model] = _load(self.pool, self.pool.models[model], self.weights_dir)
        self._loaded[model] = self._loaded.pop(model)  # moved to the end: used last
        return self._loaded[model]

    def _fingerprint(self, model: int) -> str:
        if model not in self._fingerprints:
            self._fingerprints[model] = self.pool.fingerprint(self.pool.models[model], self.weights_dir)
        return self._fingerprints[model]


def _batches(numbers: list[int], size: int, settings: Callable[[int], GenerationSettings]) -> list[list[int]]:
    batches: list[list[int]] = []
    for number in numbers:
        if not batches or len(batches[-1]) == size or settings(batches[-1][0]) != settings(number):
            batches.append([])
        batches[-1].append(number)
    return batches


def _load(pool: Pool, model: CandidateModel, weights_dir: Path | None) -> Any:
    arguments: dict[str, Any] = {"batch_size": model.batch_size, **model.arguments}
    if model.weights is not None:
        folder = find_weights(model.weights, model.name, pool.folder, weights_dir)
        arguments["pretrained"] = str(folder)
        if model.weights.file and model.weights.file.endswith(".gguf"):
            arguments["gguf_file"] = model.weights.file
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    import lm_eval.models
    import torch
    import transformers
    from lm_eval.api.registry import get_model

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if model.lm_eval not in lm_eval.models.MODEL_MAPPING:
        known = ", ".join(sorted(lm_eval.models.MODEL_MAPPING))
        raise UserError(f"model {model.name}: lm-eval has no model type {model.lm_eval!r}; it has {known}")
    if model.lm_eval in {"hf", "hf-auto", "huggingface"}:
        arguments.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
    try:
        return get_model(model.lm_eval)(**arguments)
    except (OSError, ValueError, TypeError, ImportError, AssertionError) as error:
        shown = " ".join(str(error).split())
        raise UserError(
            f"model {model.name} cannot be loaded as lm-eval `{model.lm_eval}`: {shown}; check arguments and weights"
        ) from error


def _run_batch(lm: Any, model: CandidateModel, texts: list[str], settings: GenerationSettings) -> list[Generation]:
    from lm_eval.api.instance import Instance

    arguments = {"until": list(settings.until), "max_gen_toks": settings.max_new_tokens, "do_sample": False}
    instances = [Instance("generate_until", {}, (text, dict(arguments)), n) for n, text in enumerate(texts)]
    quiet = {"disable_tqdm": True} if "disable_tqdm" in inspect.signature(lm.generate_until).parameters else {}
    start = time.perf_counter()
    responses = lm.generate_until(instances, **quiet)
    seconds = (time.perf_counter() - start) / len(texts)
    made = []
    for text, response in zip(texts, responses, strict=True):
        tokens_in = min(_count(lm, model, text), _readable(lm, settings))
        tokens_out = _count(lm, model, response, add_special_tokens=False)
        # lm-eval returns text alone: a response as long as the limit was cut off by it.
        reason = "length" if tokens_out >= settings.max_new_tokens else "stop"
        made.append(Generation(response, tokens_in, tokens_out, reason, seconds))  # type: ignore[arg-type]
    return made


def _readable(lm: Any, settings: GenerationSettings) -> float:
    """Tokens of context that fit the model: lm-eval cuts longer ones off on the left."""
    length = getattr(lm, "max_length", None)
    return length - settings.max_new_tokens if isinstance(length, int) else float("inf")


def _count(lm: Any, model: CandidateModel, text: str, **options: bool) -> int:
    if getattr(lm, "tokenizer", None) is None:
        raise UserError(
            f"model {model.name} gives no token counts, so its cost is unknown: name a `tokenizer` in its arguments"
        )
    return len(lm.tok_encode(text, **options))
