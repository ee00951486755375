"""Tables of recorded outcomes, one model call each, as a recording of one hop."""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BeforeValidator, Field, ValidationError
from rich.console import Console

from harness.runs.manifest import provenance
from pools.answers import answer_reader, guess_answers
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
HELD_OUT: tuple[Split, ...] = ("train", "validation", "test")  # the last is kept before the others
EXAMPLE = '[{"question": ..., "scores": {"MODEL": SCORE, ...}}, ...]'
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


def _alone(cell: Any) -> Any:
    """The text of a list of one text, as RouterBench writes its texts; anything else as it is."""
    if isinstance(cell, str) and re.match(r"\[['\"]", cell):
        with suppress(SyntaxError, ValueError, MemoryError, RecursionError):
            listed = ast.literal_eval(cell)
            if len(listed) == 1 and isinstance(listed[0], str):
                return listed[0]
    return cell


def _is_missing(field: str, cell: Any) -> bool:
    """Whether a cell is empty. Of a number "NaN" is, too; as a text that is an answer like any other."""
    number = field in ("score", "cost")
    return cell is None or cell == "" or cell != cell or (number and str(cell).lower() == "nan")


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
    kind: Text = ""


def import_outcomes(options: Import, console: Console) -> Path:
    """Read tables, check them, and write the recording; where it is. Raises UserError for a table that is not whole."""
    files, costs = options.files, not options.quality_only
    if not files:
        raise UserError("no file to import; name a CSV, Parquet or JSON file of outcomes")
    name = common_name(files) if options.name is None else options.name
    check_name(name, "the name of the pool and the suite (--name, or else the file's name)")
    check_name(options.cost_unit, "--cost-unit")
    out = options.out or Path("runs") / "recordings" / name
    check_recording_target(out, replace=options.force)
    splits = splits_of(files, options.splits)
    outcomes: list[Row] = []
    forms, read = [], 0
    for file, split in zip(files, splits, strict=True):
        table = read_table(file, parquet=options.format == "parquet")
        form = form_of(table[0], file) if options.format == "auto" else options.format
        forms.append(form)
        if options.prices and not (costs and form == "routellm"):
            raise UserError("--prices is for --format routellm with costs; other tables say what each call cost")
        if form == "json" and costs:
            raise UserError(f"{file} holds no costs, as every list of questions and scores; give --quality-only")
        fields = [field for field in Row.model_fields if field != "cost" or (costs and form != "routellm")]
        rows = list(read_rows(_cells(table, form, fields, name, file, read), fields, file))
        read += len(table)
        if costs and form == "routellm":
            charge = _charger(dict.fromkeys(row.model for row in rows), options.prices, options.tokenizer)
            rows = [row.model_copy(update={"cost": charge(row)}) for row in rows]
        outcomes += [row if split is None else row.model_copy(update={"split": split}) for row in rows]
    named = ", ".join(file.name for file in files)
    rates = f"--prices {' '.join(options.prices)}" if options.prices else f"as recorded in {named}"
    cost_model = recorded_cost(options.cost_unit if costs else "", rates)
    tree, names, left_out = build(outcomes, cost_model, options.drop_incomplete)
    tree.answers = options.answers
    if options.answers == "auto":
        tree.answers = guess_answers(
            generation.response for m in range(len(tree.models)) for _, _, generation in tree.generations(m)
        )
    answer_reader(tree.answers)
    if options.hops > 1:
        tree = tree.cascade(options.hops)
    pool = Pool(
        name=name,
        models=tuple(CandidateModel(name=model, lm_eval="recorded", base_rate=0.0) for model in tree.models),
        cost_unit=cost_model.unit,
        rates=cost_model.source,
        description="A table of outcomes of one call each.",
        billed=True,
    )
    of_split = Counter(item.split for item in tree.items)
    counts = {split: of_split[split] for split in get_args(Split)}
    manifest = {
        **provenance(),
        "suite": name,
        "single_hop": not tree.independent,
        "source": [
            {"file": file.name, "sha256": file_hash(file), "format": form, "split": split}
            for file, form, split in zip(files, forms, splits, strict=True)
        ],
        "models": {},
        "counts": {"items": len(tree.items), "transitions": len(tree.items) * len(tree.models), **counts, **left_out},
        "item_names": names,
    }
    save_recording(tree, pool, manifest, out, replace=options.force)
    said = [f"{len(tree.items):,} items, {len(tree.models)} models, one hop"]
    said.append(", ".join(f"{number:,} {split}" for split, number in counts.items()))
    said += [f"{number:,} {what.replace('_', ' ')} items left out" for what, number in left_out.items() if number]
    console.print("; ".join(said), highlight=False, markup=False)
    return out


def common_name(files: Sequence[Path]) -> str:
    """What the names of the files begin with alike, in whole words. Raises UserError if that is nothing."""
    if len(files) == 1:
        return files[0].stem
    words = [re.split(r"([-_. ])", file.stem) for file in files]
    alike = "".join(same[0] for same in takewhile(lambda same: len(set(same)) == 1, zip(*words, strict=False)))
    if not alike.strip("-_. "):
        raise UserError("the names of the files begin with no word alike; give the recording a name with --name")
    return alike.strip("-_. ")


def splits_of(files: Sequence[Path], given: Sequence[Split]) -> list[Split | None]:
    """The split of each file, as given or as several files' names say; None: each row's own, or by its prompt."""
    if given and len(given) != len(files):
        raise UserError(f"--splits {' '.join(given)}: expected one for each of the {len(files)} files")
    if given or len(files) == 1:
        return list(given) or [None]
    found: list[Split | None] = []
    for file in files:
        words = re.split(r"[-_. ]", file.stem.lower())
        named = [split for split in get_args(Split) if split in words]
        if len(named) != 1:
            raise UserError(f"{file} does not say in its name whether it is train, validation or test; give --splits")
        found += named
    return found


def form_of(row: Cells, file: Path) -> str:
    """What the columns are, by their names. Raises UserError if they are none that is known."""
    if {"question", "scores"} <= set(row):
        return "json"
    if {"item", "model", "score"} <= set(row):
        return "csv"
    for form, (_, of_model) in reversed(WIDE.items()):  # RouterBench's columns end as RouteLLM's do, too
        if any(column.endswith(next(iter(of_model.values()))) for column in row):
            return form
    raise UserError(
        f"{file} has no columns of outcomes: expected {', '.join(COLUMNS)}, or those of RouteLLM or RouterBench "
        f"(docs/guides/outcomes.md), separated by commas, got {shown(', '.join(row))}"
    )


def read_table(path: Path, parquet: bool = False) -> list[dict[str, Any]]:
    """The rows of a Parquet, a JSON or else a CSV file. Raises UserError for another file, and one without rows."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if not path.is_file():
        raise UserError(f"no such file: {path}; name a CSV, Parquet or JSON file of outcomes")
    try:
        with path.open("rb") as file:
            parquet |= file.read(4) == b"PAR1" or path.suffix == ".parquet"
        if path.suffix == ".json":
            return read_json(path)
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
        kind = "a Parquet file" if parquet else "a CSV, Parquet or JSON file, in UTF-8"
        raise UserError(f"{path} cannot be read: {error}; expected {kind}") from None
    if not rows:
        raise UserError(f"{path} has no rows")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path} has the column {shown(twice)} twice; expected each name once")
    return list(rows)


def read_json(path: Path) -> list[dict[str, Any]]:
    """A list of objects. Raises UserError for anything else."""
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}; expected a JSON file in UTF-8") from None
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise UserError(f"{path} is no list of objects; expected {EXAMPLE}")
    return rows


def _cells(
    table: Sequence[Cells], form: str, fields: Sequence[str], task: str, file: Path, before: int
) -> Iterator[tuple[int, Cells]]:
    """The cells of each outcome, and the number of its row.

    task: of a table that names none; its items are called by their numbers, from `before` on.
    """
    if form in ("csv", "parquet"):
        _check_columns(table, [column for column in COLUMNS if column in fields], file)
        yield from enumerate(table, 1)
        return
    if form == "json":
        _check_columns(table, ["question", "scores"], file)
        for number, row in enumerate(table, 1):
            if not isinstance(row["scores"], Mapping):
                raise UserError(f"{file}: entry {number}: scores is {shown(row['scores'])}, expected {{MODEL: SCORE}}")
            for model, score in row["scores"].items():
                shared = {"item": before + number, "task": task, "prompt": row["question"]}
                yield number, {**shared, "model": model, "score": score}
        return
    of_item, of_model = WIDE[form]
    suffix = next(iter(of_model.values()))
    models = [column.removesuffix(suffix) for column in table[0] if column.endswith(suffix)]
    _check_columns(table, [*of_item.values(), *(models or [f"MODEL{suffix}"])], file)
    for number, row in enumerate(table, 1):
        shared = {"item": before + number, "task": task, **{field: row[column] for field, column in of_item.items()}}
        for model in models:
            own = {field: row.get(f"{model}{end}") for field, end in of_model.items()}
            cells = {**shared, "model": model, "score": row[model], **own}
            yield number, {key: _alone(cell) for key, cell in cells.items()} if form == "routerbench" else cells


def _check_columns(table: Sequence[Cells], expected: Sequence[str], file: Path) -> None:
    missing = [column for column in expected if column not in table[0]]
    if missing:
        hint = " (without costs give --quality-only)" if missing == ["cost"] else ""
        raise UserError(
            f"{file} has no column {missing[0]}{hint}: expected {', '.join(expected)}, separated by commas, got "
            f"{shown(', '.join(table[0]))}"
        )


def read_rows(cells: Iterable[tuple[int, Cells]], fields: Sequence[str], file: Path) -> Iterator[Row]:
    """What the cells, each with the number of its row, say of these fields. Without a score or a cost there is none."""
    for number, of in cells:
        given = {field: of[field] for field in fields if not _is_missing(field, of.get(field))}
        if any(field in fields and field not in given for field in ("score", "cost")):
            continue
        try:
            row = Row.model_validate(given)
        except ValidationError as error:
            raise UserError(f"{file.name}: row {number}: {one_line(error)}") from None
        for field in ("item", "task", "model", *(["kind"] if row.kind else [])):
            check_name(getattr(row, field), f"{file.name}: row {number}: {field}")
        yield row


def build(
    outcomes: Sequence[Row], cost_model: CostModel, drop_incomplete: bool
) -> tuple[Tree, dict[str, list[str]], dict[str, int]]:
    """The tree of one hop, the items' names by task in the order of `doc_id`, and how many items were left out.

    Of items that ask the same one stays, since they would be on both sides of a split: of the test items before those
    of validation and train, and of one split the first.
    """
    models = list(dict.fromkeys(outcome.model for outcome in outcomes))
    check_distinct(models, "model")
    check_distinct(dict.fromkeys(outcome.task for outcome in outcomes), "task")
    by_item: dict[tuple[str, str, str, Split | None], dict[str, Row]] = {}
    for outcome in outcomes:
        of_item = by_item.setdefault((outcome.task, outcome.item, outcome.prompt, outcome.split), {})
        if outcome.model in of_item:
            raise UserError(
                f"item {outcome.item} of {outcome.task} has two outcomes of {outcome.model}; one is expected"
            )
        of_item[outcome.model] = outcome
    whole = {key: found for key, found in by_item.items() if len(found) == len(models)}
    dropped = len(by_item) - len(whole)
    if dropped and not drop_incomplete:
        (task, item, prompt, split), found = next((key, found) for key, found in by_item.items() if key not in whole)
        if any(other[:3] == (task, item, prompt) and other[3] != split for other in by_item):
            raise UserError(f"item {item} of {task} has several splits; one is expected")
        lacking = next(model for model in models if model not in found)
        raise UserError(
            f"item {item} of {task}, with the prompt {shown(prompt)}, has no outcome of {lacking} ({dropped} of "
            f"{len(by_item)} items are incomplete); complete the table, or leave these items out with --drop-incomplete"
        )
    if not whole:
        raise UserError("no item has an outcome of every model")
    kept: dict[str, tuple[Split, str, str, str]] = {}
    for task, name, prompt, given in whole:
        split, asked = given or split_of(prompt), normalised(prompt)
        if asked not in kept or HELD_OUT.index(split) > HELD_OUT.index(kept[asked][0]):
            kept[asked] = split, task, name, prompt
    names: dict[str, list[str]] = {}
    items, rows, named, repeated = [], [], set[tuple[str, str]](), Counter[str]()
    for (task, name, prompt, given), found in whole.items():
        split = given or split_of(prompt)
        if kept.get(normalised(prompt)) != (split, task, name, prompt):
            repeated[f"repeated_{split}"] += 1
            continue
        del kept[normalised(prompt)]
        if (task, name) in named:
            raise UserError(f"item {name} of {task} has several prompts; one is expected")
        named.add((task, name))
        of_task = names.setdefault(task, [])
        kinds = sorted({row.kind for row in found.values()})
        if len(kinds) > 1:
            raise UserError(f"item {name} of {task} has the kinds {' and '.join(map(shown, kinds))}; one is expected")
        items.append(Item(task, len(of_task), prompt, GenerationSettings((), 0), split, kinds[0]))
        of_task.append(name)
        rows.append(found)
    tree = Tree(items, models, 1, cost_model)
    for index, found in enumerate(rows):
        for action, model in enumerate(models):
            row = found[model]
            tree.put(index, 1 + action, Generation(row.response, 0, 0, "stop", 0.0, row.cost), row.score)
    return tree, names, {"incomplete": dropped, **repeated}


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
