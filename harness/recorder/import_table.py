"""Tables of recorded outcomes, one model call each, as a recording of one hop."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError
from rich.console import Console

from harness.runs.manifest import provenance
from pools.cost import MAX_COST, MAX_RATE, CostModel, recorded_cost
from pools.data.recording import check_recording_target, save_recording
from pools.errors import UserError, shown
from pools.mdp.tree import Tree
from pools.names import check_distinct, check_name
from pools.numbers import read_number
from pools.pool import CandidateModel, Pool
from pools.schema import Schema, one_line
from pools.types import Generation, GenerationSettings, Item, Split
from pools.weights import file_hash
from tasks import split_of
from tasks.split import normalised

if TYPE_CHECKING:
    from harness.recorder.config import Import

Cells = Mapping[str, Any]
COLUMNS = ("item", "task", "prompt", "model", "score", "cost")
# Of tables with a row per item: which columns are about the item, and what follows a model's name in those of a model.
WIDE = {
    "routellm": ({"prompt": "prompt"}, {"response": "_response"}),
    "routerbench": (
        {"item": "sample_id", "task": "eval_name", "prompt": "prompt"},
        {"cost": "|total_cost", "response": "|model_response"},
    ),
}


def _text(cell: Any) -> Any:
    return str(cell) if type(cell) is int else cell


def _number(cell: Any) -> Any:
    """A cell that pydantic makes a number of: of a text the number that it writes, or whether it is true."""
    if not isinstance(cell, str):
        return cell
    return cell.lower() == "true" if cell.lower() in ("true", "false") else read_number(cell, float)


Text = Annotated[str, BeforeValidator(_text)]
Number = Annotated[float, BeforeValidator(_number), Field(strict=False, ge=0)]


class Row(Schema):
    """What one model answered to one item."""

    item: Text
    task: Text
    prompt: Text
    model: Text
    score: Annotated[Number, Field(le=1)]
    cost: Annotated[Number, Field(le=MAX_COST)] = 0.0
    response: Text = ""
    split: Split | None = None


def import_outcomes(options: Import, console: Console) -> Path:
    """Read a table, check it, and write the recording; where it is. Raises UserError for a table that is not whole."""
    name = options.file.stem if options.name is None else options.name
    check_name(name, "the name of the pool and the suite (--name, or else the file's name)")
    check_name(options.cost_unit, "--cost-unit")
    out = options.out or Path("runs") / "recordings" / name
    check_recording_target(out, replace=options.force)
    costs = not options.quality_only
    billed_by_prices = costs and options.format == "routellm"
    if options.prices and not billed_by_prices:
        raise UserError("--prices is for --format routellm with costs; other tables say what each call cost")
    table = read_table(options.file, parquet=options.format == "parquet" or options.file.suffix == ".parquet")
    fields = [field for field in Row.model_fields if field != "cost" or (costs and not billed_by_prices)]
    if options.format in WIDE:
        cells = _wide(table, options.format, name, options.file)
    else:
        _check_columns(table, [column for column in COLUMNS if column in fields], options.file)
        cells = enumerate(table, 1)
    outcomes = list(read_rows(cells, fields))
    if billed_by_prices:
        charge = _charger(dict.fromkeys(outcome.model for outcome in outcomes), options.prices, options.tokenizer)
        outcomes = [outcome.model_copy(update={"cost": charge(outcome)}) for outcome in outcomes]
    rates = f"--prices {' '.join(options.prices)}" if options.prices else f"as recorded in {options.file.name}"
    cost_model = recorded_cost(options.cost_unit if costs else "", rates)
    tree, names, left_out = build(outcomes, cost_model, options.drop_incomplete)
    pool = Pool(
        name=name,
        models=tuple(CandidateModel(name=model, lm_eval="recorded", base_rate=0.0) for model in tree.models),
        cost_unit=cost_model.unit,
        rates=cost_model.source,
        description="A table of outcomes of one call each.",
        billed=True,
    )
    manifest = {
        **provenance(),
        "suite": name,
        "single_hop": True,
        "source": {"file": options.file.name, "sha256": file_hash(options.file), "format": options.format},
        "models": {},
        "counts": {"items": len(tree.items), "transitions": len(tree.items) * len(tree.models), **left_out},
        "item_names": names,
    }
    save_recording(tree, pool, manifest, out, replace=options.force)
    said = [f"{len(tree.items):,} items, {len(tree.models)} models, one hop"]
    said += [f"{number:,} {what} items left out" for what, number in left_out.items() if number]
    console.print("; ".join(said), highlight=False, markup=False)
    return out


def read_table(path: Path, parquet: bool) -> list[dict[str, Any]]:
    """The rows of a Parquet, or else a CSV file. Raises UserError for another file, and for a table without rows."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if not path.is_file():
        raise UserError(f"no such file: {path}; name a CSV or Parquet file of outcomes")
    try:
        if parquet:
            with path.open("rb") as file:  # pyarrow takes a path with a colon for an address
                table = pa.parquet.read_table(file, use_threads=False, pre_buffer=False)
        else:
            # Everything as text: a question that reads "0042" or "true" is not to become a number or a truth value.
            quoted = pa.csv.ParseOptions(newlines_in_values=True)
            with pa.csv.open_csv(path, parse_options=quoted) as rows_of:
                texts = dict.fromkeys(rows_of.schema.names, pa.string())
            convert = pa.csv.ConvertOptions(column_types=texts)
            one = pa.csv.ReadOptions(use_threads=False)
            table = pa.csv.read_csv(path, read_options=one, parse_options=quoted, convert_options=convert)
        names, rows = table.column_names, table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # also a text or a date that is none
        kind = "a Parquet file" if parquet else "a CSV file in UTF-8, or --format parquet"
        raise UserError(f"{path} cannot be read: {error}; expected {kind}") from None
    if not rows:
        raise UserError(f"{path} has no rows")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path} has the column {shown(twice)} twice; expected each name once")
    return list(rows)


def _wide(table: Sequence[Cells], kind: str, task: str, file: Path) -> Iterator[tuple[int, Cells]]:
    """The cells of each outcome of a table with a row per item, and the number of its row.

    task: of a table that names none; its items are called by their numbers.
    """
    of_item, of_model = WIDE[kind]
    suffix = next(iter(of_model.values()))
    models = [column.removesuffix(suffix) for column in table[0] if column.endswith(suffix)]
    _check_columns(table, [*of_item.values(), *(models or [f"MODEL{suffix}"])], file)
    for number, row in enumerate(table, 1):
        shared = {"item": number, "task": task, **{field: row[column] for field, column in of_item.items()}}
        for model in models:
            own = {field: row.get(f"{model}{end}") for field, end in of_model.items()}
            yield number, {**shared, "model": model, "score": row[model], **own}


def _check_columns(table: Sequence[Cells], expected: Sequence[str], file: Path) -> None:
    missing = [column for column in expected if column not in table[0]]
    if missing:
        hint = " (without costs give --quality-only)" if missing == ["cost"] else ""
        raise UserError(
            f"{file} has no column {missing[0]}{hint}: expected {', '.join(expected)}, separated by commas, got "
            f"{shown(', '.join(table[0]))}"
        )


def read_rows(cells: Iterable[tuple[int, Cells]], fields: Sequence[str]) -> Iterator[Row]:
    """What the cells, each with the number of its row, say of these fields. Without a score or a cost there is none."""
    for number, of in cells:
        given = {field: of[field] for field in fields if of.get(field) not in (None, "")}
        if any(field in fields and field not in given for field in ("score", "cost")):
            continue
        try:
            row = Row.model_validate(given)
        except ValidationError as error:
            raise UserError(f"row {number}: {one_line(error)}") from None
        for field in ("item", "task", "model"):
            check_name(getattr(row, field), f"row {number}: {field}")
        yield row


def build(
    outcomes: Sequence[Row], cost_model: CostModel, drop_incomplete: bool
) -> tuple[Tree, dict[str, list[str]], dict[str, int]]:
    """The tree of one hop, the items' names by task in the order of `doc_id`, and how many items were left out.

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
    if dropped and not drop_incomplete:
        (task, item, prompt), found = next((key, found) for key, found in by_item.items() if key not in whole)
        lacking = next(model for model in models if model not in found)
        raise UserError(
            f"item {item} of {task}, with the prompt {shown(prompt)}, has no outcome of {lacking} ({dropped} of "
            f"{len(by_item)} items are incomplete); complete the table, or leave these items out with --drop-incomplete"
        )
    if not whole:
        raise UserError("no item has an outcome of every model")
    if twice := next((key for key, number in Counter(key[:2] for key in whole).items() if number > 1), None):
        raise UserError(f"item {twice[1]} of {twice[0]} has several prompts; one is expected")
    names: dict[str, list[str]] = {}
    items: dict[str, Item] = {}
    kept: list[dict[str, Row]] = []
    for (task, name, prompt), found in whole.items():
        splits = {outcome.split for outcome in found.values()}
        if len(splits) > 1:
            raise UserError(f"item {name} of {task} has several splits; one is expected")
        if normalised(prompt) in items:
            continue
        of_task = names.setdefault(task, [])
        split = splits.pop() or split_of(prompt)
        items[normalised(prompt)] = Item(task, len(of_task), prompt, GenerationSettings((), 0), split)
        of_task.append(name)
        kept.append(found)
    tree = Tree(list(items.values()), models, 1, cost_model)
    for index, found in enumerate(kept):
        for action, model in enumerate(models):
            row = found[model]
            tree.put(index, 1 + action, Generation(row.response, 0, 0, "stop", 0.0, row.cost), row.score)
    return tree, names, {"incomplete": dropped, "repeated": len(whole) - len(kept)}


def _charger(models: Iterable[str], prices: Sequence[str], tokenizer_name: str | None) -> Callable[[Row], float]:
    """Dollars of a call, from MODEL=INPUT,OUTPUT in US$ per million tokens and a tokenizer's count of the two texts."""
    price_of: dict[str, tuple[float, float]] = {}
    for text in prices:
        model, _, pair = text.rpartition("=")
        try:
            read, written = (read_number(part, float) for part in pair.split(","))
        except ValueError:
            read = written = math.nan
        if not (model and 0 <= read <= MAX_RATE and 0 <= written <= MAX_RATE):
            raise UserError(
                f"--prices {text}: expected MODEL=INPUT,OUTPUT in US$ per million tokens, each from 0 to {MAX_RATE:g}"
            )
        price_of[model] = read, written
    unpriced = [model for model in models if model not in price_of]
    if unpriced or tokenizer_name is None:
        raise UserError(
            "--format routellm holds neither costs nor tokens: give --prices MODEL=INPUT,OUTPUT for "
            f"{', '.join(unpriced) or 'each model'} and a --tokenizer to count with, or --quality-only"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    except (OSError, ValueError) as error:
        raise UserError(f"--tokenizer {tokenizer_name} cannot be loaded: {error}") from None

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def charge(row: Row) -> float:
        read, written = price_of[row.model]
        return (read * count(row.prompt) + written * count(row.response)) / 1e6

    return charge
