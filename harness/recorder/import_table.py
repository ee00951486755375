"""Tables of recorded outcomes, one model call each, as a recording of one hop."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rich.console import Console

from harness.runs.manifest import provenance
from pools.cost import MAX_COST, MAX_RATE
from pools.data.recording import check_recording_target, save_recording
from pools.errors import UserError, shown
from pools.mdp.tree import Tree
from pools.names import check_distinct, check_name
from pools.numbers import read_number
from pools.pool import CandidateModel, Pool
from pools.types import Generation, GenerationSettings, Item, Split
from pools.weights import file_hash
from tasks import split_of
from tasks.split import normalised

if TYPE_CHECKING:
    from harness.recorder.config import Import

Format = Literal["csv", "parquet", "routellm", "routerbench"]
COLUMNS = ("item", "task", "prompt", "model", "score", "cost")


@dataclass(frozen=True)
class Row:
    """What one model answered to one item. cost, split: None where none is given."""

    item: str
    task: str
    prompt: str
    model: str
    score: float
    cost: float | None
    response: str = ""
    split: Split | None = None


def import_outcomes(options: Import, console: Console) -> Path:
    """Read a table, check it, and write the recording; where it is. Raises UserError for a table that is not whole."""
    out = options.out or Path("runs") / "recordings" / _table_name(options)
    check_recording_target(out, replace=options.force)
    check_name(options.cost_unit, "--cost-unit")
    rows = read_table(options.file, parquet=options.format == "parquet" or options.file.suffix == ".parquet")
    reader: Callable[[Sequence[Mapping[str, Any]], Import], Iterable[Row]] = {
        "csv": _long,
        "parquet": _long,
        "routellm": _routellm,
        "routerbench": _routerbench,
    }[options.format]
    if options.prices and (options.format != "routellm" or options.quality_only):
        raise UserError("--prices is for --format routellm with costs; other tables say what each call cost")
    tree, pool, names, left_out = build(list(reader(rows, options)), options)
    manifest = {
        **provenance(),
        "suite": _table_name(options),
        "single_hop": True,
        "source": {"file": options.file.name, "sha256": file_hash(options.file), "format": options.format},
        "models": {},
        "counts": {"items": len(tree.items), "transitions": len(tree.items) * len(tree.models), **left_out},
        "item_names": names,
    }
    save_recording(tree, pool, manifest, out, replace=options.force)
    said = [f"{len(tree.items):,} items, {len(tree.models)} models, one hop"]
    said += [f"{number:,} {what} items left out" for what, number in left_out.items() if number]
    console.print("; ".join(said), highlight=False)
    return out


def read_table(path: Path, parquet: bool) -> list[dict[str, Any]]:
    """The rows of a Parquet or else a CSV file. Nothing is unpickled. Raises UserError where it is none."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if not path.is_file():
        raise UserError(f"no such file: {path}; name a CSV or Parquet file of outcomes")
    if path.suffix in {".pkl", ".pickle"}:
        raise UserError(f"{path} is a pickle, which can run anything when it is read; convert it to Parquet or CSV")
    try:
        if parquet:
            with path.open("rb") as file:  # pyarrow takes a path with a colon for an address
                table = pa.parquet.read_table(file)
        else:
            # Everything as text: a question that reads "0042" or "true" is not to become a number or a truth value.
            quoted = pa.csv.ParseOptions(newlines_in_values=True)
            with pa.csv.open_csv(path, parse_options=quoted) as rows_of:
                texts = dict.fromkeys(rows_of.schema.names, pa.string())
            convert = pa.csv.ConvertOptions(column_types=texts)
            table = pa.csv.read_csv(path, parse_options=quoted, convert_options=convert)
        names, rows = table.column_names, table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # also a text or a date that is none
        reason = " ".join(str(error).split())[:200]
        kind = "a Parquet file" if parquet else "a CSV file in UTF-8, or --format parquet"
        raise UserError(f"{path} cannot be read: {reason}; expected {kind}") from None
    if not rows:
        raise UserError(f"{path} has no rows")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path} has the column {shown(twice)} twice; expected each name once")
    return list(rows)


def build(outcomes: Sequence[Row], options: Import) -> tuple[Tree, Pool, dict[str, list[str]], dict[str, int]]:
    """The tree of one hop, the pool, the items' names by task in the order of `doc_id`, and how many were left out.

    Of items that ask the same the first stays, as in every suite: they would be on both sides of a split.
    """
    models = list(dict.fromkeys(outcome.model for outcome in outcomes))
    check_distinct(models, "model")
    check_distinct(dict.fromkeys(outcome.task for outcome in outcomes), "task")
    by_item: dict[tuple[str, str, str], dict[str, Row]] = {}
    for outcome in outcomes:
        of_item = by_item.setdefault((outcome.task, outcome.item, outcome.prompt), {})
        if outcome.model in of_item:
            raise UserError(
                f"item {outcome.item} of {outcome.task} has two outcomes of {outcome.model}; one is expected"
            )
        of_item[outcome.model] = outcome
    whole = {key: found for key, found in by_item.items() if len(found) == len(models)}
    dropped = len(by_item) - len(whole)
    if dropped and not options.drop_incomplete:
        (task, item, _), found = next((key, found) for key, found in by_item.items() if len(found) < len(models))
        also = "several prompts and with one of them " * (sum(key[:2] == (task, item) for key in by_item) > 1)
        lacking = next(model for model in models if model not in found)
        raise UserError(
            f"item {item} of {task} has {also}no outcome of {lacking} ({dropped} of {len(by_item)} items are "
            "incomplete); complete the table, or leave these items out with --drop-incomplete"
        )
    if not whole:
        raise UserError("no item has an outcome of every model")
    if twice := next((key for key, number in Counter(key[:2] for key in whole).items() if number > 1), None):
        raise UserError(f"item {twice[1]} of {twice[0]} has several prompts; one is expected")
    names: dict[str, list[str]] = {}
    items: list[Item] = []
    kept: dict[str, dict[str, Row]] = {}
    for (task, name, _), found in whole.items():
        row = next(iter(found.values()))
        if any(other.split != row.split for other in found.values()):
            raise UserError(f"item {name} of {task} has several splits; one is expected")
        if normalised(row.prompt) in kept:
            continue
        kept[normalised(row.prompt)] = found
        of_task = names.setdefault(task, [])
        items.append(Item(task, len(of_task), row.prompt, GenerationSettings((), 0), row.split or split_of(row.prompt)))
        of_task.append(name)
    tree = Tree(items, models, 1)
    for index, found in enumerate(kept.values()):
        for action, model in enumerate(models):
            outcome = found[model]
            cost = 0.0 if outcome.cost is None else outcome.cost
            tree.put(index, 1 + action, Generation(outcome.response, 0, 0, "stop", 0.0, cost), outcome.score)
    pool = Pool(
        name=_table_name(options),
        models=tuple(CandidateModel(name=model, lm_eval="recorded", base_rate=0.0) for model in models),
        cost_unit="" if options.quality_only else options.cost_unit,
        rates=f"--prices {' '.join(options.prices)}" if options.prices else f"as recorded in {options.file.name}",
        description="A table of outcomes of one call each.",
        billed=True,
    )
    return tree, pool, names, {"incomplete": dropped, "repeated": len(whole) - len(kept)}


def _long(rows: Sequence[Mapping[str, Any]], options: Import) -> Iterable[Row]:
    """One row per item and model: COLUMNS, and `split` and `response` where they are given."""
    wanted = [name for name in COLUMNS if name != "cost" or not options.quality_only]
    missing = [name for name in wanted if name not in rows[0]]
    if missing:
        hint = "; without costs give --quality-only" if missing == ["cost"] else ""
        if len(rows[0]) == 1:  # another separator, as a spreadsheet may write it
            hint = f", separated by commas; its one column is {shown(next(iter(rows[0])))}"
        raise UserError(f"{options.file} has no column {missing[0]!r}: expected {', '.join(COLUMNS)}{hint}")
    for number, row in enumerate(rows, 1):
        if any(_empty(row[name]) for name in wanted if name in ("score", "cost")):
            continue
        split = str(row["split"]) if row.get("split") not in (None, "") else None
        if split is not None and split not in get_args(Split):
            raise UserError(f"row {number}: split {shown(split)}, expected one of {', '.join(get_args(Split))}")
        yield Row(
            item=_name(row, "item", number),
            task=_name(row, "task", number),
            prompt=_text(row, "prompt", number),
            model=_name(row, "model", number),
            score=_score(row["score"], number),
            cost=None if options.quality_only else _cost(row["cost"], number),
            response=_response(row, "response", number),
            split=split,  # type: ignore[arg-type]
        )


def _routellm(rows: Sequence[Mapping[str, Any]], options: Import) -> Iterable[Row]:
    """RouteLLM's tables: `prompt`, per model whether it was right, under its name, and `<model>_response`."""
    suffix = "_response"
    models = [name.removesuffix(suffix) for name in rows[0] if name.endswith(suffix)]
    missing = [name for name in ("prompt", *models) if name not in rows[0]]
    if missing or not models:
        raise UserError(
            f"{options.file} is no table of RouteLLM's: expected `prompt` and, per model, a column of its name and "
            f"one of its name with {suffix}; missing: {', '.join(missing) or 'any model'}"
        )
    for model in models:
        check_name(model, "model")
    task = _table_name(options)
    charge = None if options.quality_only else _charger(models, options)
    for number, row in enumerate(rows, 1):
        prompt = _text(row, "prompt", number)
        for model in models:
            if _empty(row[model]):
                continue
            response = _response(row, model + suffix, number)
            cost = None if charge is None else charge(model, prompt, response)
            yield Row(str(number), task, prompt, model, _score(row[model], number), cost, response)


def _routerbench(rows: Sequence[Mapping[str, Any]], options: Import) -> Iterable[Row]:
    """RouterBench's table: `sample_id`, `prompt`, `eval_name`, and per model its score and `<model>|total_cost`."""
    suffix = "|total_cost"
    models = [name.removesuffix(suffix) for name in rows[0] if name.endswith(suffix)]
    missing = [name for name in ("sample_id", "prompt", "eval_name", *models) if name not in rows[0]]
    if missing or not models:
        raise UserError(
            f"{options.file} is no table of RouterBench's: expected sample_id, prompt, eval_name and, per model, a "
            f"column of its name and one of its name with {suffix}; missing: {', '.join(missing) or 'any model'}"
        )
    for model in models:
        check_name(model, "model")
    for number, row in enumerate(rows, 1):
        item, task = (_name(row, name, number) for name in ("sample_id", "eval_name"))
        prompt = _text(row, "prompt", number)
        for model in models:
            if _empty(row[model]) or (not options.quality_only and _empty(row[model + suffix])):
                continue
            cost = None if options.quality_only else _cost(row[model + suffix], number)
            response = _response(row, f"{model}|model_response", number)
            yield Row(item, task, prompt, model, _score(row[model], number), cost, response)


def _charger(models: Sequence[str], options: Import) -> Callable[[str, str, str], float]:
    """Dollars of a call, from the prices given and a tokenizer's count of the two texts."""
    prices: dict[str, tuple[float, float]] = {}
    for text in options.prices:
        model, _, pair = text.rpartition("=")
        try:
            read, written = (read_number(part, float) for part in pair.split(","))
        except ValueError:
            read = written = math.nan
        if not (model and 0 <= read <= MAX_RATE and 0 <= written <= MAX_RATE):
            raise UserError(
                f"--prices {text}: expected MODEL=INPUT,OUTPUT in US$ per million tokens, each from 0 to {MAX_RATE:g}"
            )
        prices[model] = read, written
    unpriced = [model for model in models if model not in prices]
    if unpriced or options.tokenizer is None:
        raise UserError(
            f"{options.file} holds neither costs nor tokens: give --prices MODEL=INPUT,OUTPUT for "
            f"{', '.join(unpriced or models)} and a --tokenizer to count with, or --quality-only"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--tokenizer {options.tokenizer} cannot be loaded: {reason}") from None

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def charge(model: str, prompt: str, response: str) -> float:
        read, written = prices[model]
        return (read * count(prompt) + written * count(response)) / 1e6

    return charge


def _empty(cell: Any) -> bool:
    """Whether a score or a cost is not there: its outcome is none, and its item incomplete."""
    return cell is None or cell == ""


def _text(row: Mapping[str, Any], name: str, number: int) -> str:
    if row[name] is None or row[name] == "":
        raise UserError(f"row {number}: {name} is empty")
    if not isinstance(row[name], str | int) or isinstance(row[name], bool):
        raise UserError(f"row {number}: {name} is {shown(row[name])}, expected a text, or a whole number")
    return str(row[name])


def _name(row: Mapping[str, Any], name: str, number: int) -> str:
    return check_name(_text(row, name, number), f"row {number}: {name}")


def _table_name(options: Import) -> str:
    """What the pool and the suite are called."""
    if options.name is not None:
        return check_name(options.name, "--name")
    return check_name(options.file.stem, "the file's name, which names the pool and the suite unless --name does,")


def _response(row: Mapping[str, Any], name: str, number: int) -> str:
    """A response, which may be empty and need not be given."""
    return "" if row.get(name) in (None, "") else _text(row, name, number)


def _score(value: Any, number: int) -> float:
    """A score in [0, 1]; a truth value counts as 0 or 1."""
    truth = {"true": 1.0, "false": 0.0}.get(value.lower()) if isinstance(value, str) else None
    score = _number(value) if truth is None else truth
    if not 0 <= score <= 1:
        raise UserError(f"row {number}: score {shown(value)}, expected a number from 0 to 1")
    return score


def _cost(value: Any, number: int) -> float:
    cost = _number(value)
    if not 0 <= cost <= MAX_COST:
        raise UserError(
            f"row {number}: cost {shown(value)}, expected a number >= 0, at most {MAX_COST:g}; without costs give "
            "--quality-only"
        )
    return cost


def _number(value: Any) -> float:
    """What a cell of a table says; NaN where it is no number."""
    try:
        return read_number(value, float) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
