"""Where a pool's models run: batches in, generations out. In this process, through lm-eval's model classes."""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pools.errors import QueryError, UserError, shown
from pools.extras import installing
from pools.models.api import (
    Failure,
    ServerText,
    advice,
    ask_patiently,
    attach_usage,
    omit_empty_stop,
    reason,
    uncounted,
)
from pools.models.progress import Loading, Progress, under_way
from pools.pool import CandidateModel, Pool
from pools.registry import Registry
from pools.secrets import clean_logs, harmless, remember
from pools.template import render
from pools.types import SHARE, Context, FinishReason, Generation, GenerationSettings, Timing, UpstreamError
from pools.weights import find_here, find_weights

Request = tuple[Context, GenerationSettings]


@dataclass(frozen=True)
class Unanswered:
    """In place of an answer: what the server behind a model made of that request, as the text of an error.

    silent: whether there was no reply.
    """

    text: str
    silent: bool = False


Answers = Sequence[Generation | Unanswered]

ENGINES: Registry[Any] = Registry("engine", "harness.engines", "pools.models", skip=("hf",))
"""What is registered are classes of engines with a method `build(argument, local)`: see `build_engine`."""
register_engine = ENGINES.register


class Engine(Protocol):
    """Runs batches of requests; all requests of a batch have the same settings."""

    def run(self, batches: Mapping[int, Sequence[Sequence[Request]]]) -> Iterator[tuple[int, int, Answers]]:
        """Run the batches of each model, by its number; yields `(model, batch, answers)` as they come, in any order."""
        ...


def build_engine(spec: str, local: LocalEngine) -> Engine:
    """An engine by name, as in `local` or `ray:ADDRESS`. Raises UserError for one that is not known.

    It is built from the text behind the colon and from the local engine, which has the pool and the folder of weights.
    """
    _, kind, argument = ENGINES.find(spec)
    engine: Engine = kind.build(argument, local)
    return engine


@register_engine("local")
class LocalEngine:
    """The models in this process, each loaded when it is first asked.

    resident: how many models stay loaded; the one used longest ago makes room. progress: is told of models that are
    loaded, and of tokens and responses as they come.
    """

    def __init__(
        self,
        pool: Pool,
        weights_dir: Path | None = None,
        resident: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.pool, self.weights_dir, self.progress = pool, weights_dir, progress
        self._resident = resident or len(pool.models)
        self._loaded: dict[int, Any] = {}
        self._expected: set[int] = set()
        self._loading = threading.RLock()
        for model in pool.models:
            remember(model.arguments)
        clean_logs()

    @classmethod
    def build(cls, argument: str, local: LocalEngine) -> LocalEngine:
        """The local one itself. Raises UserError for an argument: it takes none."""
        if argument:
            raise UserError(f"engine local takes no argument, got {shown(argument)}; name it alone")
        return local

    def expect(self, models: Iterable[int]) -> None:
        """Models that may be asked from now on: before the next one is loaded, the weights of all are looked for."""
        self._expected |= {*models}

    def run(self, batches: Mapping[int, Sequence[Sequence[Request]]]) -> Iterator[tuple[int, int, Answers]]:
        """The batches one after the other, model by model."""
        self.expect(batches)
        for model, of_model in batches.items():
            for number, batch in enumerate(of_model):
                yield model, number, self.run_batch(model, batch)

    def run_batch(self, model: int, requests: Sequence[Request]) -> Answers:
        """The answers to requests of the same settings."""
        declared, prompts = self.pool.models[model], [self.prompt(model, context) for context, _ in requests]
        lm = self.language_model(model)
        with under_way(declared.name, self.progress):
            return _run_batch(lm, declared, prompts, requests[0][1])

    def prompt(self, model: int, context: Context) -> Any:
        """What lm-eval's model is handed: text or, for a chat server, lm-eval's wrapper of the messages."""
        declared = self.pool.models[model]
        text = render(declared.template, context)
        if not declared.chat_template:
            return text + context.prefill
        begun = context.prefill.lstrip(" ")  # the space is plain text's, between question and answer
        messages = [{"role": "user", "content": text}]
        messages += [{"role": "assistant", "content": begun}] if begun else []
        try:
            return self.language_model(model).apply_chat_template(messages, add_generation_prompt=not begun)
        except ValueError as error:
            raise UserError(
                f"model {declared.name}: its chat template cannot be applied: {' '.join(str(error).split())}; set "
                "`chat_template: false` in the pool file, or name a tokenizer that has one"
            ) from None

    def language_model(self, model: int) -> Any:
        """The lm-eval model, loaded now if need be. Raises UserError if its weights or its type are missing."""
        with self._loading:
            if model not in self._loaded:
                self._find_expected()
                while len(self._loaded) >= self._resident:
                    self._loaded.pop(next(iter(self._loaded)))
                self._loaded[model] = self._load(self.pool.models[model])
            self._loaded[model] = self._loaded.pop(model)  # moved to the end: used last
            return self._loaded[model]

    def _find_expected(self) -> None:
        """Raise UserError if the weights of a model that may be asked are nowhere; the hub's are fetched now."""
        expected, self._expected = sorted(self._expected), set()
        for model in (self.pool.models[number] for number in expected):
            if model.weights is not None and find_here(model.weights, self.pool.folder, self.weights_dir) is None:
                find_weights(model.weights, model.name, self.pool.folder, self.weights_dir)

    def _load(self, model: CandidateModel) -> Any:
        tell, start = self.progress or (lambda event: None), time.perf_counter()
        tell(Loading(model.name))
        loaded = _load(self.pool, model, self.weights_dir)
        tell(Loading(model.name, time.perf_counter() - start))
        return loaded


def _load(pool: Pool, model: CandidateModel, weights_dir: Path | None) -> Any:
    arguments: dict[str, Any] = {"batch_size": model.batch_size, **model.arguments}
    if model.weights is not None:
        folder = find_weights(model.weights, model.name, pool.folder, weights_dir)
        arguments["pretrained"] = str(folder)
        if model.weights.file and model.weights.file.endswith(".gguf"):
            arguments["gguf_file"] = model.weights.file
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers
    from lm_eval.api.registry import get_model
    from lm_eval.models.api_models import TemplateAPI
    from lm_eval.models.huggingface import HFLM

    _silence()
    try:
        model_class = get_model(model.lm_eval)
        if model_class is HFLM:
            from pools.models.hf import SharedPrefixHFLM as model_class

            arguments.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
        if issubclass(model_class, TemplateAPI):
            # One prompt a request: so several are under way at once, and each is billed by the server's own counts.
            arguments = {**arguments, "batch_size": 1}
        loaded = model_class(**arguments)
    except Exception as error:  # whatever a library says of weights and arguments that the user named
        shown = " ".join(str(error).split()) or type(error).__name__
        no_vllm = isinstance(error, ModuleNotFoundError) and error.name == "vllm"
        advice = installing("vllm") if no_vllm else "check arguments and weights"
        raise UserError(
            f"model {model.name} cannot be loaded as lm-eval `{model.lm_eval}`: {shown}; {advice}"
        ) from harmless(error)
    if isinstance(loaded, TemplateAPI):
        if "chat" in model.lm_eval and not model.chat_template:
            raise UserError(
                f"model {model.name}: `{model.lm_eval}` sends messages; set `chat_template: true` in the pool file"
            )
        attach_usage(loaded, model.name)
        omit_empty_stop(loaded)
        at_once, most = (model.arguments.get(key) for key in ("num_concurrent", "max_retries"))
        ask_patiently(loaded, at_once or model.batch_size, model.patience, math.inf if most is None else most)
    if "gguf_file" in arguments and isinstance(loaded, HFLM):
        # Not what may lie in a file beside the weights, of which the fingerprint knows nothing.
        loaded.model.generation_config = transformers.GenerationConfig.from_model_config(loaded.model.config)
    return loaded


@cache
def _silence() -> None:
    """Switch off the bars and notes of lm-eval's models and of transformers: our own progress bar is on the terminal.

    An error that lm-eval logs is raised, too, and said in a line of ours.
    """
    import transformers
    from lm_eval.models import api_models
    from tqdm.asyncio import tqdm_asyncio
    from transformers import modeling_gguf_pytorch_utils

    class Silent(tqdm_asyncio):
        def __init__(self, *positional: Any, **named: Any) -> None:
            super().__init__(*positional, **{**named, "disable": True})

    api_models.tqdm = api_models.tqdm_asyncio = modeling_gguf_pytorch_utils.tqdm = Silent
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in ("lm_eval.models", "lm_eval.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def is_server(lm: Any) -> bool:
    """Whether a model of lm-eval is a server's, which several threads may ask at the same time."""
    from lm_eval.models.api_models import TemplateAPI

    return isinstance(lm, TemplateAPI)


def timing_of(model: CandidateModel) -> Timing:
    """How the seconds of a model's responses are obtained that it gives now; a server's are each request's own."""
    in_this_process: Timing = "single calls" if model.at_once == 1 else SHARE
    if model.weights is not None:
        return in_this_process
    from lm_eval.api.registry import get_model
    from lm_eval.models.api_models import TemplateAPI

    try:
        return "server" if issubclass(get_model(model.lm_eval), TemplateAPI) else in_this_process
    except Exception:  # no such type, or a package that it needs is missing: said when the model is loaded
        return SHARE


def _run_batch(lm: Any, model: CandidateModel, prompts: list[Any], settings: GenerationSettings) -> Answers:
    from lm_eval.api.instance import Instance

    room = _readable(lm, settings)
    if room < 1:
        raise QueryError(
            f"model {model.name} reads and writes at most {lm.max_length} tokens, so it cannot write up to "
            f"{settings.max_new_tokens} of them; use a task with shorter answers, or another model"
        )
    arguments = {"until": list(settings.until), "max_gen_toks": settings.max_new_tokens, "do_sample": False}
    instances = [Instance("generate_until", {}, (prompt, dict(arguments)), n) for n, prompt in enumerate(prompts)]
    quiet = {"disable_tqdm": True} if "disable_tqdm" in inspect.signature(lm.generate_until).parameters else {}
    start = time.perf_counter()
    try:
        responses = lm.generate_until(instances, **quiet)
    except Exception as error:
        if not hasattr(lm, "base_url") or isinstance(error, UserError):
            raise
        raise UpstreamError(no_answer(lm, model, reason(error))) from harmless(error)
    seconds = (time.perf_counter() - start) / len(prompts)
    made: list[Generation | Unanswered] = []
    for prompt, response in zip(prompts, responses, strict=True):
        failure = getattr(response, "failure", None)
        made.append(
            _generation(lm, model, prompt, response, settings, room, seconds)
            if failure is None
            else Unanswered(no_answer(lm, model, failure), failure.stage != "replied")
        )
    return made


def no_answer(lm: Any, model: CandidateModel, why: Failure) -> str:
    """The line of an error: what the server behind a model said or did, and what to do about it."""
    said = f"the server {lm.base_url} {'was not asked' if why.stage == 'unsent' else 'did not answer'}: {why.text}"
    return f"model {model.name}: {said}; {advice(why, lm, model.lm_eval, model.patience)}"


def _generation(
    lm: Any,
    model: CandidateModel,
    prompt: Any,
    response: str,
    settings: GenerationSettings,
    room: float,
    seconds: float,
) -> Generation:
    """The response with what it used: as its server says, else as the tokenizer counts, and `seconds` for each."""
    said = response if isinstance(response, ServerText) else ServerText(response)
    if said.tokens is not None:
        tokens_in, tokens_out = said.tokens
    else:
        tokens_in = int(min(_count(lm, model, _text_read(lm, prompt)), room))
        tokens_out = _count(lm, model, str(response), add_special_tokens=False)
    # lm-eval returns text alone: a response as long as the limit was cut off by it.
    counted: FinishReason = "length" if tokens_out >= settings.max_new_tokens else "stop"
    took = seconds if said.seconds is None else said.seconds
    return Generation(str(response), tokens_in, tokens_out, said.finish_reason or counted, took)


def _readable(lm: Any, settings: GenerationSettings) -> float:
    """Tokens of context that fit the model: lm-eval cuts longer ones off on the left, unless it sends text."""
    length = getattr(lm, "max_length", None) if getattr(lm, "tokenized_requests", True) else None
    return length - settings.max_new_tokens if isinstance(length, int) else float("inf")


def _text_read(lm: Any, prompt: Any) -> str:
    """What a model reads. A chat server applies its template itself, so here the tokenizer's stands for it."""
    if isinstance(prompt, str):
        return prompt
    messages = json.loads(prompt.prompt)
    if not getattr(lm.tokenizer, "chat_template", None):
        return "".join(message["content"] for message in messages)
    begun = messages[-1]["role"] == "assistant"
    ending = {"add_generation_prompt": not begun, "continue_final_message": begun}
    return str(lm.tokenizer.apply_chat_template(messages, tokenize=False, **ending))


def _count(lm: Any, model: CandidateModel, text: str, **options: bool) -> int:
    tokenizer = getattr(lm, "tokenizer", None)
    if tokenizer is None:
        raise uncounted(model.name)
    tokens = lm.tok_encode(text, **options)
    if isinstance(tokens, str):  # lm-eval's chat servers hand the text back
        special = {"add_special_tokens": False} if hasattr(tokenizer, "chat_template") else {}
        tokens = tokenizer.encode(text, **special)
    return len(tokens)
