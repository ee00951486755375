"""`Gen` answered by the models themselves, through lm-eval's model classes."""

from __future__ import annotations

import inspect
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

    Requests run in batches of the model's `batch_size`, each of the same settings, those that allow the longest
    responses first, then the longest queries. Every batch is written to the store before the next begins, and what the
    store held when `generate` was called is not asked for again.

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
            prompts = {number: self._prompt(model, requests[number][0]) for number in missing}
            texts = {number: _text(prompt) for number, prompt in prompts.items()}
            done = 0
            # A batch shares its settings and, as far as it goes, its queries, so that what their requests begin with
            # alike is read once; the longest come first, so that memory runs out early if at all, and what is left of
            # the time is rather over- than underestimated.
            missing.sort(key=lambda n: (*_longest_first(*requests[n]), -len(texts[n]), texts[n]))
            for batch in _batches(missing, declared.batch_size, lambda n: requests[n][1]):
                made = _run_batch(lm, declared, [prompts[n] for n in batch], requests[batch[0]][1])
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
        return _text(self._prompt(model, context))

    def _prompt(self, model: int, context: Context) -> Any:
        """What lm-eval's model is handed: text or, for a chat server, lm-eval's wrapper of the messages."""
        declared = self.pool.models[model]
        text = render(declared.template, context)
        if not declared.chat_template:
            return text
        try:
            return self.language_model(model).apply_chat_template([{"role": "user", "content": text}])
        except ValueError as error:
            raise UserError(
                f"model {declared.name}: its chat template cannot be applied: {' '.join(str(error).split())}; set "
                "`chat_template: false` in the pool file, or name a tokenizer that has one"
            ) from None

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


def _longest_first(context: Context, settings: GenerationSettings) -> tuple[Any, ...]:
    return -settings.max_new_tokens, settings.until, -len(context.query), context.query


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
    import lm_eval.models
    import torch
    import transformers
    from lm_eval.api.registry import get_model, model_registry
    from lm_eval.models.huggingface import HFLM

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    known = lm_eval.models.MODEL_MAPPING.keys() | model_registry.keys()  # other packages' models are in the latter
    if model.lm_eval not in known:
        names = ", ".join(sorted(known))
        raise UserError(f"model {model.name}: lm-eval has no model type {model.lm_eval!r}; it has {names}")
    if model.lm_eval in {"hf", "hf-auto", "huggingface"}:
        arguments.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
    model_class = get_model(model.lm_eval)
    if model_class is HFLM:
        from pools.hf import SharedPrefixHFLM as model_class
    try:
        with _quiet():
            loaded = model_class(**arguments)
    except Exception as error:  # whatever a library says of weights and arguments that the user named
        shown = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"model {model.name} cannot be loaded as lm-eval `{model.lm_eval}`: {shown}; check arguments and weights"
        ) from error
    if "gguf_file" in arguments and isinstance(loaded, HFLM):
        # Not what may lie in a file beside the weights, of which the fingerprint knows nothing.
        loaded.model.generation_config = transformers.GenerationConfig.from_model_config(loaded.model.config)
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and notes of the libraries on the terminal, where our own progress bar is.

    Not by TQDM_DISABLE: tqdm reads that when it is imported, which may be long past.
    """
    from tqdm.std import tqdm

    original, logger = tqdm.__init__, logging.getLogger("lm_eval")
    level = logger.level

    def silent(self: Any, *positional: Any, **named: Any) -> None:
        original(self, *positional, **{**named, "disable": True})

    tqdm.__init__ = silent
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        tqdm.__init__ = original
        logger.setLevel(level)


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt.prompt)


def _run_batch(lm: Any, model: CandidateModel, prompts: list[Any], settings: GenerationSettings) -> list[Generation]:
    from lm_eval.api.instance import Instance

    room = _readable(lm, settings)
    if room < 1:
        raise UserError(
            f"model {model.name} reads and writes at most {lm.max_length} tokens, so it cannot write up to "
            f"{settings.max_new_tokens} of them; use a task with shorter answers, or another model"
        )
    tokens_in = [min(_count_read(lm, model, prompt), room) for prompt in prompts]
    arguments = {"until": list(settings.until), "max_gen_toks": settings.max_new_tokens, "do_sample": False}
    instances = [Instance("generate_until", {}, (prompt, dict(arguments)), n) for n, prompt in enumerate(prompts)]
    quiet = {"disable_tqdm": True} if "disable_tqdm" in inspect.signature(lm.generate_until).parameters else {}
    start = time.perf_counter()
    try:
        with _quiet():
            responses = lm.generate_until(instances, **quiet)
    except Exception as error:
        if not hasattr(lm, "base_url"):
            raise
        shown = " ".join(str(error).split()) or type(error).__name__
        # Of several requests at once all fail, and asyncio would print a traceback of each that nobody waited for.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise UserError(
            f"model {model.name}: the server {lm.base_url} did not answer: {shown}; check that it runs, `base_url` "
            "and the key"
        ) from error
    seconds = (time.perf_counter() - start) / len(prompts)
    made = []
    for read, response in zip(tokens_in, responses, strict=True):
        tokens_out = _count(lm, model, response, add_special_tokens=False)
        # lm-eval returns text alone: a response as long as the limit was cut off by it.
        reason = "length" if tokens_out >= settings.max_new_tokens else "stop"
        made.append(Generation(response, int(read), tokens_out, reason, seconds))  # type: ignore[arg-type]
    return made


def _readable(lm: Any, settings: GenerationSettings) -> float:
    """Tokens of context that fit the model: lm-eval cuts longer ones off on the left, unless it sends text."""
    length = getattr(lm, "max_length", None) if getattr(lm, "tokenized_requests", True) else None
    return length - settings.max_new_tokens if isinstance(length, int) else float("inf")


def _count_read(lm: Any, model: CandidateModel, prompt: Any) -> int:
    """Tokens that a model reads. A chat server applies its template itself, so here the tokenizer's is counted."""
    if isinstance(prompt, str):
        return _count(lm, model, prompt)
    messages = json.loads(prompt.prompt)
    if getattr(getattr(lm, "tokenizer", None), "chat_template", None):
        return _count(lm, model, lm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return sum(_count(lm, model, message["content"]) for message in messages)


def _count(lm: Any, model: CandidateModel, text: str, **options: bool) -> int:
    tokenizer = getattr(lm, "tokenizer", None)
    if tokenizer is None:
        raise UserError(
            f"model {model.name} gives no token counts, so its cost is unknown: name `tokenizer` and, for a chat "
            "server, `tokenizer_backend: huggingface` in its arguments"
        )
    tokens = lm.tok_encode(text, **options)
    if isinstance(tokens, str):  # lm-eval's chat servers hand the text back
        special = {"add_special_tokens": False} if hasattr(tokenizer, "chat_template") else {}
        tokens = tokenizer.encode(text, **special)
    return len(tokens)
