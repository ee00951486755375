"""`Gen` answered by the models themselves, in batches, by way of a transition store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pools.data.store import TransitionStore
from pools.models.engine import Engine, LocalEngine, Request, Unanswered, build_engine, is_server, timing_of
from pools.models.progress import Batch, Loading, Progress, Silence, UnderWay
from pools.pool import Pool
from pools.template import visible
from pools.types import Context, Generation, GenerationSettings, UpstreamError

# So many batches in a row without a reply, or the requests of so many refused, and a server is taken to be down.
SILENT_BATCHES = 2


class LiveGenerator:
    """The models of a pool.

    Requests run in batches of the model's `batch_size`, each of the same settings, those that allow the longest
    responses first, then the longest queries. Every batch is written to the store as soon as it is there, and what the
    store held when `generate` was called is not asked for again.

    engine: where the models run, by name or as an object; by default in this process, at most `resident` of them
    loaded at once. progress: is told of models that are loaded, of tokens and responses as they come, and of batches.
    """

    def __init__(
        self,
        pool: Pool,
        weights_dir: Path | None = None,
        store: TransitionStore | None = None,
        resident: int | None = None,
        progress: Progress | None = None,
        engine: Engine | str = "local",
    ) -> None:
        self.pool, self.weights_dir, self.store, self.progress = pool, weights_dir, store, progress
        self._local = LocalEngine(pool, weights_dir, resident, self._tell)
        self._engine: Engine = build_engine(engine, self._local) if isinstance(engine, str) else engine
        self._fingerprints: dict[int, str] = {}

    def generate(self, model: int, requests: Sequence[Request]) -> list[Generation]:
        """Answers of model number `model`, in the order of the requests."""
        return self.generate_all({model: requests})[model]

    def generate_all(self, asked: Mapping[int, Sequence[Request]]) -> dict[int, list[Generation]]:
        """Answers of several models, each in the order of its requests; an engine may run them at the same time.

        Responses that a model's template does not show make no request of their own. Raises UpstreamError if a server
        did not answer some requests, once the others are answered and stored; if it was silent for two batches in a
        row (of a server that is asked one by one, for two requests) or refused the requests of two batches, at once: of
        one, a single request may be at fault.
        """
        read = {m: [(self.reads(m, context), s) for context, s in requests] for m, requests in asked.items()}
        distinct = {model: list(dict.fromkeys(requests)) for model, requests in read.items()}
        place = {model: {request: n for n, request in enumerate(of)} for model, of in distinct.items()}
        try:
            answers = self._generate_distinct(distinct)
        except UpstreamError as error:
            there = {m: [error.answers[m][place[m][r]] for r in of] for m, of in read.items() if m in error.answers}
            raise UpstreamError(str(error), error.queries, there) from None
        return {model: [answers[model][place[model][request]] for request in of] for model, of in read.items()}

    def reads(self, model: int, context: Context) -> Context:
        """The context without the responses that the model is not shown."""
        return visible(self.pool.models[model].template, context)

    def _generate_distinct(self, asked: Mapping[int, Sequence[Request]]) -> dict[int, list[Generation]]:
        answers: dict[int, list[Generation | None]] = {}
        batches: dict[int, list[list[int]]] = {}
        for model, requests in asked.items():
            answers[model] = [None] * len(requests)
            if self.store is not None:
                fingerprint = self._fingerprint(model)
                answers[model] = [self.store.get(fingerprint, settings, context) for context, settings in requests]
            missing = [number for number, answer in enumerate(answers[model]) if answer is None]
            if missing:
                batches[model] = self._batches(model, requests, missing)
        done, refused, silent = (dict.fromkeys(batches, 0) for _ in range(3))
        in_batches = {model: [[asked[model][n] for n in b] for b in of_model] for model, of_model in batches.items()}
        for model in batches:
            self._report(model, 0, batches[model], ())
        failed: list[tuple[Request, Unanswered]] = []
        for model, number, made in self._engine.run(in_batches) if batches else ():
            of_batch = list(zip(batches[model][number], made, strict=True))
            good = {n: answer for n, answer in of_batch if isinstance(answer, Generation)}
            failed += [(asked[model][n], answer) for n, answer in of_batch if isinstance(answer, Unanswered)]
            if self.store is not None and good:
                entries = [(*asked[model][n], generation) for n, generation in good.items()]
                good = dict(zip(good, self.store.put(self._fingerprint(model), entries), strict=True))
            for place, generation in good.items():
                answers[model][place] = generation
            done[model] += len(good)
            self._report(model, done[model], batches[model], list(good.values()))
            no_reply = all(isinstance(answer, Unanswered) and answer.silent for answer in made)
            silent[model] = silent[model] + 1 if no_reply else 0
            refused[model] = 0 if good else refused[model] + len(made)
            of_batches = SILENT_BATCHES * self.pool.models[model].at_once
            if silent[model] >= SILENT_BATCHES or refused[model] >= of_batches:
                break
        if failed:
            total = sum(map(len, asked.values()))
            more = f"; {len(failed)} of {total} requests failed" if total > 1 else ""
            kept = "; what was answered is stored, the same command asks for the rest" if self.store is not None else ""
            queries = [(context.query, settings) for (context, settings), _ in failed]
            raise UpstreamError(failed[0][1].text + more + kept, queries, answers)
        return {model: [answer for answer in found if answer is not None] for model, found in answers.items()}

    def behind_servers(self, models: Iterable[int]) -> bool:
        """Whether each of the models is a server's, so that none of them works in this process; loads them."""
        return all([is_server(self.language_model(model)) for model in models])

    def expect(self, models: Iterable[int]) -> None:
        """Models of this process that may be asked: the weights of all are looked for before one is loaded."""
        self._local.expect(models)

    def text(self, model: int, context: Context) -> str:
        """What the model reads: its template, and its tokenizer's chat template if the pool file asks for that."""
        prompt = self._local.prompt(model, context)
        return prompt if isinstance(prompt, str) else str(prompt.prompt)

    def language_model(self, model: int) -> Any:
        """The lm-eval model in this process. Raises UserError if its weights or its type are missing."""
        return self._local.language_model(model)

    def _tell(self, event: Loading | Silence | UnderWay | Batch) -> None:
        if self.progress:
            self.progress(event)

    def _report(self, model: int, done: int, batches: Sequence[Sequence[int]], made: Sequence[Generation]) -> None:
        tokens_in, tokens_out = sum(g.tokens_in for g in made), sum(g.tokens_out for g in made)
        self._tell(Batch(self.pool.models[model].name, done, sum(map(len, batches)), tokens_in, tokens_out))

    def _fingerprint(self, model: int) -> str:
        if model not in self._fingerprints:
            self._fingerprints[model] = self.pool.fingerprint(self.pool.models[model], self.weights_dir)
        return self._fingerprints[model]

    def _batches(self, model: int, requests: Sequence[Request], missing: Sequence[int]) -> list[list[int]]:
        """The numbers of the missing requests, in batches.

        A batch shares its settings and, as far as it goes, its queries, so that what their requests begin with alike is
        read once; the longest come first, so that memory runs out early if at all, and what is left of the time is
        rather over- than underestimated.
        """
        declared = self.pool.models[model]
        # One after the other, each is stored as it comes.
        alone = declared.concurrent in (None, 1) and timing_of(declared) == "server"
        at_once = 1 if alone else declared.at_once
        batches: list[list[int]] = []
        for number in sorted(missing, key=lambda n: _longest_first(*requests[n])):
            last = batches[-1] if batches else []
            if not last or len(last) == at_once or requests[last[0]][1] != requests[number][1]:
                batches.append([])
            batches[-1].append(number)
        return batches


def _longest_first(context: Context, settings: GenerationSettings) -> tuple[Any, ...]:
    responses = -sum(map(len, context.responses)), context.responses
    return -settings.max_new_tokens, settings.until, -len(context.query), context.query, *responses
