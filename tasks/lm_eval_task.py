"""A task of lm-eval: its queries, its filters, its scores.

The query is the text that lm-eval itself would send, and the score is the one that lm-eval itself would log, so that
plain `lm_eval --model hf` and this project agree item by item.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast, get_args

from pools.errors import UserError, shown
from pools.names import check_name, did_you_mean
from pools.types import GenerationSettings, Item, Split, content_hash
from tasks.split import normalised, split_of

FEWSHOT_SEED = 1234  # simple_evaluate's default
DEFAULT_NEW_TOKENS = 256  # lm-eval's own, where a task names none
# In a task's metadata, each names the field of a document that says it: the kind of question, the wording, the split.
KIND, WORDING, SPLIT = "kind", "wording", "split"
# In lm-eval's order of precedence (lm_eval.models.utils.normalize_gen_kwargs).
TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# Without effect on greedy decoding.
IGNORED = {"do_sample", "temperature", "top_p", "top_k", "until", *TOKEN_LIMITS}


class LmEvalTask:
    """An lm-eval task behind the `Task` protocol.

    task: as `TaskManager.load` gives it, of output type `generate_until`. metric, filter_name: what counts as the
    score; by default the first of each. limit: only the first so many documents belong to the task. threads: scores are
    computed in so many threads; 1 unless the task's `process_results` is known to be thread-safe.

    Raises UserError if the task samples, asks more than one request per item, or its score is no number in [0, 1].
    """

    def __init__(
        self,
        task: Any,
        metric: str | None = None,
        filter_name: str | None = None,
        limit: int | None = None,
        threads: int = 1,
    ) -> None:
        self.name: str = task.config.task
        self._task, self._metric, self._limit, self._threads = task, metric, limit, threads
        check_config(self.name, {**task.config.to_dict(), "output_type": task.OUTPUT_TYPE})
        ensembles = {ensemble.name: ensemble for ensemble in task._filters}
        if filter_name is not None and filter_name not in ensembles:
            raise UserError(f"task '{self.name}' has no filter '{filter_name}': expected one of {sorted(ensembles)}")
        _check_metrics(task)
        self._filter = ensembles[filter_name] if filter_name is not None else task._filters[0]
        if task.config.num_fewshot is None:  # as in simple_evaluate
            task.set_config(key="num_fewshot", value=0)
        self._instances: dict[int, Any] = {}
        self._items: list[Item] = []
        self._duplicates = 0
        self._built: float = 0

    @property
    def duplicates(self) -> int:
        """How many items were left out because an earlier one asks the same."""
        self._build(None)
        return self._duplicates

    @property
    def fingerprint(self) -> str:
        """Hash of lm-eval's configuration, the metric and filter, and all queries, settings and targets."""
        self._build(None)
        config = dataclasses.asdict(self._task.config)
        # A path of this computer, and what was asked for on another command line; and what changes no item or score.
        metadata = config.get("metadata") or {}
        config["metadata"] = {k: v for k, v in metadata.items() if k not in ("config_source", KIND, WORDING)}
        items = [
            [item.doc_id, item.query + item.prefill, str(self._task.doc_to_target(self._instances[item.doc_id].doc))]
            + ([item.split] if SPLIT in metadata else [])
            for item in self._items
        ]
        settings = sorted({(item.settings.max_new_tokens, *item.settings.until) for item in self._items})
        return content_hash(self.name, _plain(config), self._metric, self._filter.name, _plain(settings), items)

    def items(self, limit: int | None = None) -> list[Item]:
        """The items of the first `limit` documents (as `lm_eval --limit`); of those that ask the same, the first."""
        self._build(limit)
        return [item for item in self._items if limit is None or item.doc_id < limit]

    def score(self, answers: Sequence[tuple[int, str]]) -> list[float]:
        """Scores by the task's own filter and `process_results`; equal answers are scored once."""
        if not answers:
            return []
        if any(doc_id not in self._instances for doc_id, _ in answers):
            self._build(None)
        distinct = list(dict.fromkeys(answers))
        instances = [
            dataclasses.replace(self._instances[doc_id], resps=[response], filtered_resps={})
            for doc_id, response in distinct
        ]
        self._filter.apply(instances)
        if self._threads > 1:
            with ThreadPoolExecutor(self._threads) as pool:
                scores = list(pool.map(self._score_one, instances))
        else:
            scores = [self._score_one(instance) for instance in instances]
        by_answer = dict(zip(distinct, scores, strict=True))
        return [by_answer[answer] for answer in answers]

    def try_out(self) -> None:
        """Score the first item's own target, before any model is asked. Raises UserError if that fails."""
        for item in self.items(1):
            target = str(self._task.doc_to_target(self._instances[item.doc_id].doc))
            try:
                self.score([(item.doc_id, target)])
            except UserError:
                raise
            except Exception as error:  # whatever a filter or a metric, of lm-eval or of the user's, raises
                raise UserError(
                    f"task '{self.name}': its filters or its metric fail at the first target "
                    f"({type(error).__name__}: {error}); correct its file"
                ) from None

    def _score_one(self, instance: Any) -> float:
        results = self._task.process_results(instance.doc, [instance.filtered_resps[self._filter.name]])
        metric = next(iter(results), None) if self._metric is None else self._metric
        if metric not in results:
            raise UserError(f"task '{self.name}' has no metric '{metric}': expected one of {sorted(results)}")
        if self._task.higher_is_better().get(metric) is False:
            raise UserError(f"task '{self.name}': lower is better for metric '{metric}'; name another in the suite")
        try:
            score = float(results[metric])
        except (TypeError, ValueError):
            score = math.nan
        if not 0.0 <= score <= 1.0:
            raise UserError(
                f"task '{self.name}': metric '{metric}' gave {str(results[metric])[:60]}, expected a number in [0, 1] "
                f"per item; name another metric in the suite, of {sorted(results)}"
            )
        return score

    def _said(self, key: str, doc: Mapping[str, Any]) -> str:
        """A document's kind, wording or split (`key`), in the field that the metadata names; empty if it names none."""
        field = (self._task.config.metadata or {}).get(key)
        if field is None:
            return ""
        if field not in doc:
            raise UserError(
                f"task '{self.name}' has the {key} {shown(field)} in its metadata, which is no field of its documents: "
                f"expected one of {', '.join(doc)}"
            )
        return check_name(str(doc[field]), f"task '{self.name}': the {key} of a document")

    def _split_prefill(self, text: str, doc: Mapping[str, Any]) -> tuple[str, str]:
        """What lm-eval sends, as the query and what the answer begins with; the spaces between go with the latter."""
        prefix = self._task.doc_to_prefix(doc)
        if not prefix or not text.endswith(prefix):
            return text, ""
        query = text.removesuffix(prefix).rstrip(" ")
        return query, text[len(query) :]

    def _split(self, doc: Mapping[str, Any], text: str) -> Split:
        """The split that the document says, or that its text decides."""
        said = self._said(SPLIT, doc)
        if said and said not in get_args(Split):
            expected = ", ".join(get_args(Split))
            raise UserError(f"task '{self.name}': the split of a document is {shown(said)}, expected {expected}")
        return cast(Split, said) if said else split_of(text)

    def _build(self, limit: int | None) -> None:
        """Ask lm-eval for the requests of the first `limit` documents, unless that many are here already."""
        wanted = min(math.inf if bound is None else bound for bound in (limit, self._limit))
        if wanted <= self._built:
            return
        self._task.set_fewshot_seed(seed=FEWSHOT_SEED)  # anew, so that the examples do not depend on earlier calls
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars; its warnings go through logging
            self._task.build_all_requests(limit=None if wanted == math.inf else wanted)
        self._instances, self._items, self._duplicates = {}, [], 0
        seen: set[str] = set()
        for instance in self._task.instances:
            if instance.doc_id in self._instances or len(instance.args) != 2 or not isinstance(instance.args[0], str):
                raise UserError(f"task '{self.name}' asks more than one text per item: only plain questions are routed")
            self._instances[instance.doc_id] = instance
            whole, arguments = instance.args
            query, prefill = self._split_prefill(whole, instance.doc)
            # Where examples are drawn per item, one question may come in two queries: it is the question that counts.
            text = query if self._task.config.num_fewshot == 0 else str(self._task.doc_to_text(instance.doc))
            if normalised(text) in seen:
                self._duplicates += 1
                continue
            seen.add(normalised(text))
            settings = generation_settings(self.name, arguments)
            split = self._split(instance.doc, text)
            told = self._said(KIND, instance.doc), self._said(WORDING, instance.doc)
            self._items.append(Item(self.name, instance.doc_id, query, settings, split, *told, prefill))
        self._built = wanted


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Raise UserError unless lm-eval's configuration is of a task that is answered by text, decoded greedily, once."""
    output_type = config.get("output_type", "generate_until")
    if output_type != "generate_until":
        raise UserError(
            f"task '{name}' has the output_type {shown(output_type)}, expected generate_until: "
            f"multiple-choice tasks run through python -m harness lm-eval --model routed --tasks {name}"
        )
    if config.get("repeats", 1) != 1:
        repeats = shown(config["repeats"])
        raise UserError(f"task '{name}' asks every item {repeats} times (repeats): decoding is greedy here")
    generation_settings(name, config.get("generation_kwargs") or {})


def check_filters(name: str, config: Mapping[str, Any]) -> None:
    """Raise UserError if lm-eval has no filter of a name in its configuration; functions stand there as their paths.

    To be called once the task's own modules are imported, which may register some.
    """
    from lm_eval.api.registry import filter_registry

    steps = [step for ensemble in config.get("filter_list") or [] for step in ensemble.get("filter") or []]
    for function in (step["function"] for step in steps if "function" in step):
        if function not in filter_registry and "/" not in str(function):
            known = ", ".join(sorted(filter_registry))
            hint = did_you_mean(str(function), filter_registry)
            raise UserError(f"task '{name}' has the filter function {shown(function)}: expected one of {known}{hint}")


def _check_metrics(task: Any) -> None:
    """Raise UserError if lm-eval found no function for a metric that would be computed by one of that name."""
    from lm_eval.api.registry import metric_registry
    from lm_eval.api.task import ConfigurableTask

    if task.config.process_results is not None or type(task).process_results is not ConfigurableTask.process_results:
        return
    unknown = next((metric for metric, function in task._metric_fn_list.items() if function is None), None)
    if unknown is not None:
        known = ", ".join(sorted(metric_registry))
        raise UserError(
            f"task '{task.config.task}' has the metric {shown(unknown)}: expected one of {known}, or of Hugging Face's "
            f"evaluate{did_you_mean(unknown, metric_registry)}"
        )


def generation_settings(name: str, arguments: Mapping[str, Any]) -> GenerationSettings:
    """lm-eval's generation arguments as settings of greedy decoding; UserError where they ask for anything else."""
    if not isinstance(arguments, Mapping):
        raise UserError(f"task '{name}' has the generation_kwargs {shown(arguments)}, expected a mapping")
    sample = arguments.get("do_sample")
    if sample is None:  # then lm-eval goes by the temperature
        sample = arguments.get("temperature") not in (None, 0)
    if sample:
        raise UserError(f"task '{name}' samples its responses: decoding is greedy here, use one with do_sample: false")
    harmless = {"num_beams": 1, "repetition_penalty": 1.0}
    strange = sorted(str(k) for k, v in arguments.items() if k not in IGNORED and harmless.get(k) != v)
    if strange:
        raise UserError(f"task '{name}' sets {', '.join(strange)} in generation_kwargs: decoding is greedy here")
    until = arguments.get("until") or []
    until = [until] if isinstance(until, str) else until
    limit = next((arguments[key] for key in TOKEN_LIMITS if arguments.get(key) is not None), DEFAULT_NEW_TOKENS)
    if not isinstance(until, list | tuple) or not all(isinstance(text, str) for text in until):
        raise UserError(f"task '{name}' has until {shown(until)} in generation_kwargs, expected texts")
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit < 2**31:
        raise UserError(f"task '{name}' has a limit of {shown(limit)} tokens in generation_kwargs, expected a number")
    return GenerationSettings(tuple(text for text in until if text), limit)


def _plain(value: Any) -> Any:
    """The value as JSON could hold it, and equal on every computer: functions by their source."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    try:
        return inspect.getsource(value)
    except (TypeError, OSError):
        return getattr(value, "__qualname__", type(value).__qualname__)
