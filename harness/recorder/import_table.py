"""Tables of recorded outcomes and logged traffic, one model call each, as a recording of one hop or of cascades."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from rich.console import Console

from harness.runs.manifest import provenance
from harness.runs.source import INDEPENDENT
from pools.answers import answer_reader, guess_answers
from pools.cost import MAX_COST, CostModel, read_prices, recorded_cost
from pools.data.recording import check_recording, check_recording_target, save_recording
from pools.data.traffic import logged_calls
from pools.errors import UserError, shown
from pools.json_file import read_objects
from pools.mdp.tree import Tree
from pools.names import check_distinct, check_name
from pools.numbers import read_number
from pools.pool import CandidateModel, Pool
from pools.schema import Schema, one_line
from pools.types import Generation, GenerationSettings, Item, Split, Timing
from pools.weights import file_hash
from tasks import split_of
from tasks.split import normalised

if TYPE_CHECKING:
    from harness.recorder.config import Import

Cells = Mapping[str, Any]
HELD_OUT: tuple[Split, ...] = ("train", "validation", "test")  # the last is kept before the others
EXAMPLE = '[{"question": ..., "scores": {"MODEL": SCORE, ...}}, ...]'
COLUMNS = ("item", "task", "prompt", "model", "score", "cost")
MAX_SECONDS = 1e9
"""Of what one call took: thirty years."""
IN_TABLE: Timing = "table"
OF_ITEM = ("task", "split", "kind")  # columns about the item that every format may have
LONG = ("csv", "parquet")  # of these a row is one outcome
NO_TABLE = {
    b"PK\x03\x04": "is a workbook or a ZIP file; save its table as CSV",
    b"\x1f\x8b": "is packed; unpack it first",
    b"\x80": "is a pickle, which can run anything and is not read; convert it to CSV or Parquet if you trust it",
    b"\xff\xfe": "is in UTF-16; save it as CSV in UTF-8",
    b"\xfe\xff": "is in UTF-16; save it as CSV in UTF-8",
}
"""What files that are no table begin with, and what to do."""
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
    number = field in ("score", "cost", "latency")
    return cell is None or cell == "" or cell != cell or (number and str(cell).lower() == "nan")


def _number(cell: Any, hint: str) -> Any:
    """A cell that pydantic makes a number of: of a text the number that it writes."""
    if not isinstance(cell, str):
        return cell
    try:
        return read_number(cell, float)
    except ValueError:
        raise ValueError(f"{shown(cell)} is no number: expected digits and a point{hint}") from None


def _score(cell: Any) -> Any:
    """As `_number`, or of a text whether it is true."""
    if isinstance(cell, str) and cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    return _number(cell, ", from 0 to 1, or true or false, or an empty cell")


def _cost(cell: Any) -> Any:
    return _number(cell, "; name the unit of all costs once, with --cost-unit or in a column cost_unit")


def _is_share(score: float) -> float:
    if not 0 <= score <= 1:
        hint = "; divide percentages by 100" if 1 < score <= 100 else ""
        raise ValueError(f"{score:g} is no number from 0 to 1{hint}")
    return score


def _latency(cell: Any) -> Any:
    return _number(cell, ", in seconds")


def _is_awaitable(seconds: float) -> float:
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"{seconds:g} is no number of seconds from 0 to {MAX_SECONDS:g}")
    return seconds


def _is_payable(cost: float) -> float:
    if not 0 <= cost <= MAX_COST:
        raise ValueError(f"{cost:g} is no number from 0 to {MAX_COST:g}")
    return cost


Text = Annotated[str, BeforeValidator(_text)]
Number = Annotated[float, Field(strict=False)]


class Row(Schema):
    """What one model answered to one item.

    where: the file and the row, for messages. missing: the number that the row lacks; then it is no outcome.
    """

    item: Text
    task: Text
    prompt: Text
    model: Text
    score: Annotated[Number, BeforeValidator(_score), AfterValidator(_is_share)]
    cost: Annotated[Number, BeforeValidator(_cost), AfterValidator(_is_payable)] = 0.0
    latency: Annotated[Number, BeforeValidator(_latency), AfterValidator(_is_awaitable)] | None = None
    response: Text = ""
    split: Split | None = None
    kind: Text = ""
    where: str = ""
    missing: Literal["", "score", "cost", "latency"] = ""


FIELDS = tuple(field for field in Row.model_fields if field not in ("where", "missing"))


def import_table(
    files: Path | str | Sequence[Path | str],
    out: Path | str | None = None,
    *,
    format: Literal["auto", "csv", "parquet", "routellm", "routerbench", "json", "traffic"] = "auto",
    splits: Sequence[Split] = (),
    name: str | None = None,
    quality_only: bool = False,
    cost_unit: str | None = None,
    prices: Sequence[str] = (),
    tokenizer: str | None = None,
    hops: int = 1,
    answers: str = "auto",
    drop_incomplete: bool = False,
    force: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Read tables of outcomes, check them, and write the recording; its folder.

    files: CSV, Parquet or JSON files, or logs; of several, each is of one split. out: by default a folder under
    runs/recordings. The others are the options of `python -m harness import`; say: is told what was imported.
    Raises UserError for a table that is not whole, and, without `force`, for a folder that holds another recording.
    """
    files = tuple(map(Path, [files] if isinstance(files, Path | str) else files))
    if not files:
        raise UserError("no file to import; name a CSV, Parquet or JSON file of outcomes")
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise UserError(f"{twice} is given twice; name each file once")
    if hops < 1:
        raise UserError(f"--hops {hops}: expected at least 1")
    name = common_name(files) if name is None else name
    check_name(name, "the name of the pool and the suite (--name, or else the file's name)")
    out = Path("runs") / "recordings" / name if out is None else Path(out)
    asked = {
        **{"format": format, "splits": list(splits), "quality_only": quality_only, "cost_unit": cost_unit},
        **{"prices": list(prices), "tokenizer": tokenizer, "hops": hops, "answers": answers},
        "drop_incomplete": drop_incomplete,
    }
    force = force or _same_import(out, name, files, asked)
    check_recording_target(out, replace=force)
    if answers != "auto":
        answer_reader(answers)
    of_files = splits_of(files, splits)
    costs = Costs(not quality_only, cost_unit, tuple(prices), tokenizer)
    outcomes, forms, unit = read_outcomes(files, format, of_files, name, costs)
    logged, again = "traffic" in forms, 0
    if logged:
        outcomes, again = first_answers(outcomes)
        check_shadow_sample(outcomes, files)
    named = ", ".join(file.name for file in files)
    rates = f"--prices {' '.join(prices)}" if prices else f"as recorded in {named}"
    cost_model = recorded_cost(unit, rates)
    tree, names, left_out = build(outcomes, cost_model, drop_incomplete or logged)
    responses = [made.response for model in range(len(tree.models)) for _, _, made in tree.generations(model)]
    tree.answers = guess_answers(responses) if answers == "auto" else answers
    answered = sum(map(bool, map(answer_reader(tree.answers), responses))) / len(responses)
    if any(responses) and not answered:
        raise UserError(f"--answers {shown(tree.answers)}: no response gives such an answer; name another kind")
    if hops > 1:
        tree = tree.cascade(hops)
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
        "asked": asked,
        "suite": name,
        "single_hop": not tree.independent,
        "answers_guessed": answers == "auto",
        "source": [
            {"file": file.name, "sha256": file_hash(file), "format": form, "split": split}
            for file, form, split in zip(files, forms, of_files, strict=True)
        ],
        "models": {},
        "counts": {"items": len(tree.items), "transitions": len(tree.items) * len(tree.models), **counts, **left_out},
        **({"repeated_calls": again} if logged else {}),
        "item_names": names,
    }
    save_recording(tree, pool, manifest, out, replace=force)
    for line in _said(tree, counts, left_out, answers == "auto", answered if any(responses) else None):
        say(line)
    if again:
        say(f"repeated calls of a model for the same request, left out: {again:,}")
    return out


def _same_import(folder: Path, name: str, files: Sequence[Path], asked: Mapping[str, Any]) -> bool:
    """Whether a folder holds what was made of these very files with these options."""
    try:
        there = check_recording(folder).model_dump()
    except UserError:
        return False
    hashes = [source["sha256"] for source in there.get("source", [])]
    of_files = [file_hash(file) for file in files if file.is_file()]
    return (there["suite"], there.get("asked"), hashes) == (name, asked, of_files)


def import_command(options: Import, console: Console) -> Path:
    """Import, and print what was imported; where the recording is."""
    return import_table(
        **vars(options), say=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)
    )


def _said(
    tree: Tree, counts: Mapping[str, int], left_out: Mapping[str, int], guessed: bool, answered: float | None
) -> Iterator[str]:
    """What was imported, in lines. answered: share of the responses that give an answer; None if there are no texts."""
    hops = f"cascades of {tree.max_hops} hops ({INDEPENDENT})" if tree.independent else "one hop"
    parts = [f"{len(tree.items):,} items, {len(tree.models)} models, {hops}"]
    parts.append(", ".join(f"{number:,} {split}" for split, number in counts.items()))
    parts += [f"{number:,} {what.replace('_', ' ')} items left out" for what, number in left_out.items() if number]
    yield "; ".join(parts)
    if tree.independent:
        size = sum(array.nbytes for array in (tree.known, tree.score, tree.cost, tree.context_id)) / 1e6
        memory = f"about {size:,.0f} MB" if size >= 1 else "less than 1 MB"
        yield f"the tree has {tree.known.size:,} nodes and takes {memory} of memory; a run takes a few times that"
    if tree.latency:
        calls = tree.seconds(np.arange(len(tree.items))[:, None], tree.level(1))
        yield f"latency as in the table: the median call takes {np.median(calls):.3g} s, the longest {calls.max():.3g}"
    if answered is None:
        yield "no texts of responses: a router can read who was asked, not what was answered"
    else:
        how = "guessed" if guessed else "as asked for"
        yield f"answers compared as {tree.answers} ({how}); {answered:.0%} of the responses give one"


@dataclass(frozen=True)
class Costs:
    """How what calls cost is known: from the table in `unit`, by default what it says; by `prices`; or not at all."""

    read: bool
    unit: str | None
    prices: tuple[str, ...]
    tokenizer: str | None


def read_outcomes(
    files: Sequence[Path], of_format: str, splits: Sequence[Split | None], name: str, how: Costs
) -> tuple[list[Row], list[str], str]:
    """The outcomes in all files, the format of each file, and the unit of all costs (none: an empty text).

    of_format: of the files, or auto. splits: of the files; None: each row's own, or by its prompt. name: of the task,
    for tables that name none.
    """
    costs, prices = how.read, how.prices
    outcomes: list[Row] = []
    forms, units, read = list[str](), list[str](), 0
    for file, split in zip(files, splits, strict=True):
        table = read_table(file, parquet=of_format == "parquet")
        form = form_of(table[0], file) if of_format == "auto" else of_format
        forms.append(form)
        if prices and not (costs and form in ("routellm", "traffic")):
            raise UserError(
                "--prices is for --format routellm or traffic with costs; other tables say what each call cost"
            )
        if form == "json" and costs:
            raise UserError(f"{file} holds no costs, as every list of questions and scores; give --quality-only")
        absent = {"cost"} if not costs or form == "routellm" else set()
        absent |= {"latency"} if not _has_latency(table, form) else set()
        fields = [field for field in FIELDS if field not in absent]
        if form == "traffic":
            cells = _traffic_cells(table, name, read_prices(prices), file)
        else:
            cells = _cells(table, form, fields, name, file, read)
        rows = list(read_rows(cells, fields, file))
        _check_outcomes(rows, file)
        read += len(table)
        if costs:
            given = how.unit
            if form == "traffic" and prices:
                given = "US$" if given is None else given
                if given != "US$":
                    raise UserError(f"--cost-unit {given}: costs by --prices are in US$; omit one of the two")
            units.append(unit_of(table if form in (*LONG, "traffic") else (), given, units, file))
            if form == "routellm":
                charge = _charger(dict.fromkeys(row.model for row in rows), prices, how.tokenizer)
                rows = [row.model_copy(update={"cost": charge(row)}) for row in rows]
        outcomes += rows if split is None else [_in_split(row, split) for row in rows]
    untimed = next((row.where for row in outcomes if row.latency is None and not row.missing), None)
    timed = next((row.where for row in outcomes if row.latency is not None), None)
    if timed and untimed:
        raise UserError(f"{timed} has a latency, {untimed} none; give each file the column latency, or none of them")
    return outcomes, forms, units[0] if costs else ""


def _has_latency(table: Sequence[Cells], form: str) -> bool:
    """Whether a file says how long calls took; a log does if it says so of every call."""
    if form == "traffic":
        return all(row.get("seconds") not in (None, "") for row in table)
    return form in LONG and "latency" in table[0]


def _in_split(row: Row, split: Split) -> Row:
    """The row with the split of its file. Raises UserError if it says another: test items would be trained on."""
    if row.split not in (None, split):
        raise UserError(
            f"{row.where}: split is {row.split}, but the file is {split}, by its name or --splits; "
            "correct one of them, or remove the column split"
        )
    return row.model_copy(update={"split": split})


def unit_of(table: Iterable[Cells], given: str | None, before: Sequence[str], file: Path) -> str:
    """The unit of a file's costs: what its column `cost_unit` says, else as given, else US$.

    before: of the files before it. Raises UserError if rows or files differ: no sum is over two units.
    """
    said = [(number, unit) for number, row in enumerate(table, 1) if (unit := row.get("cost_unit")) not in (None, "")]
    unit = check_name(str(said[0][1]) if said else given or "US$", "--cost-unit, or the column cost_unit,")
    other = next(((number, str(other)) for number, other in said if str(other) != unit), None)
    if other is not None:
        raise UserError(
            f"{file}: data row {other[0]}: the cost is in {other[1]}, and others in {unit}; convert them to one unit"
        )
    if said and given not in (None, unit):
        raise UserError(f"--cost-unit {given}: the costs of {file} are in {unit}, as its column cost_unit says")
    if before and before[0] != unit:
        raise UserError(
            f"the costs of {file} are in {unit}, those of the files before in {before[0]}; convert them to one unit"
        )
    return unit


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
    if {"request", "response"} <= set(row):
        return "traffic"
    wide = [
        form
        for form, (_, of_model) in reversed(WIDE.items())  # RouterBench's columns end as RouteLLM's do, too
        if any(column.endswith(next(iter(of_model.values()))) for column in row)
    ]
    if len(set(COLUMNS) & set(row)) >= 3 and ("model" in row or not wide):
        return "csv"
    if wide:
        return wide[0]
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
            start = file.read(4)
        if not start:
            raise UserError(f"{path} is empty; expected a CSV, Parquet or JSON file of outcomes")
        if wrong := next((what for magic, what in NO_TABLE.items() if start.startswith(magic)), None):
            raise UserError(f"{path} {wrong}")
        parquet |= start == b"PAR1" or path.suffix == ".parquet"
        if path.suffix in (".json", ".jsonl"):
            return read_objects(path, EXAMPLE)
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
        kind = "a Parquet file" if parquet else "a CSV file in UTF-8 (or a Parquet or JSON file)"
        if "columns, got" in str(error):
            kind = "as many cells in each row as in the first; put a text that holds commas in double quotes"
        # As everywhere here, rows are counted from the first below the header.
        said = re.sub(r"\bRow #(\d+)", lambda row: f"data row {int(row[1]) - 1}", str(error))
        raise UserError(f"{path} cannot be read: {said}; expected {kind}") from None
    if not rows:
        raise UserError(f"{path} has no rows")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path} has the column {shown(twice)} twice; expected each name once")
    return list(rows)


def _cells(
    table: Sequence[Cells], form: str, fields: Sequence[str], task: str, file: Path, before: int
) -> Iterator[tuple[int, Cells]]:
    """The cells of each outcome, and the number of its row.

    task: of a table that names none; items without a name are called by their numbers, from `before` on.
    """
    if form in LONG:
        _check_columns(table, [column for column in COLUMNS if column in fields], file)
        yield from _rows(table)
        return
    if form == "json":
        _check_columns(table, ["question", "scores"], file)
        for number, row in _rows(table):
            if not isinstance(row.get("scores"), Mapping):
                raise UserError(
                    f"{file}: entry {number}: scores is {shown(row.get('scores'))}, expected {{MODEL: SCORE}}"
                )
            shared = _shared(row, {"prompt": "question"}, before + number, task)
            for model, score in row["scores"].items():
                if isinstance(score, Mapping | list):
                    raise UserError(
                        f"{file}: entry {number}: the score of {model} is {shown(score)}, expected one number"
                    )
                yield number, {**shared, "model": model, "score": score}
        return
    of_item, of_model = WIDE[form]
    suffix = next(iter(of_model.values()))
    models = [column.removesuffix(suffix) for column in table[0] if column.endswith(suffix)]
    _check_columns(table, [*of_item.values(), *(models or [f"MODEL{suffix}"])], file)
    about = {field: field for field in OF_ITEM} | of_item
    if taken := next((model for model in models if model in about.values()), None):
        raise UserError(
            f"{file} has a column {taken}{suffix}, as if {taken} were a model, but the column {taken} is read as the "
            f"item's {taken}; rename the model, or remove {taken}{suffix}"
        )
    for number, row in _rows(table):
        shared = _shared(row, of_item, before + number, task)
        for model in models:
            own = {field: row.get(f"{model}{end}") for field, end in of_model.items()}
            cells = {**shared, "model": model, "score": row.get(model), **own}
            yield number, {key: _alone(cell) for key, cell in cells.items()} if form == "routerbench" else cells


def _traffic_cells(
    table: Sequence[Cells], task: str, prices: Mapping[str, tuple[float, float]], file: Path
) -> Iterator[tuple[int, Cells]]:
    """The cells of each logged call. What its log gives no cost for, costs what the prices of its tokens are."""
    for number, call in enumerate(logged_calls(table, file), 1):
        shared = {"item": call.item, "task": call.task or task, "prompt": call.query, "response": call.text}
        of_item = {"split": call.split, "kind": call.kind}
        of_call = {"score": call.score, "cost": call.cost_at(prices), "latency": call.seconds}
        yield number, {**shared, **of_item, "model": call.answered_by, **of_call}


def first_answers(outcomes: Sequence[Row]) -> tuple[list[Row], int]:
    """Without the outcomes of requests that a model had answered before, and how many these are."""
    first: dict[tuple[str, str, str], Row] = {}
    kept = [row for row in outcomes if row.missing or first.setdefault((row.task, row.item, row.model), row) is row]
    return kept, len(outcomes) - len(kept)


def check_shadow_sample(outcomes: Sequence[Row], files: Sequence[Path]) -> None:
    """Raise UserError if no request was answered by every model: then the log cannot rank routers as a table."""
    answered: dict[tuple[str, str], set[str]] = {}
    for row in outcomes:
        if not row.missing:
            answered.setdefault((row.task, row.item), set()).add(row.model)
    models = {row.model for row in outcomes}
    if len(models) < 2 or not any(found == models for found in answered.values()):
        many = f"no request has a scored answer of each of the {len(models)} models"
        raise UserError(
            f"{', '.join(map(str, files))}: {many if len(models) > 1 else f'every call is of {min(models)}'}, so it "
            "cannot rank routers as a table; it takes a shadow sample (requests that every model answers, each answer "
            "with a score), or propensities with enough overlap, for python -m harness estimate"
        )


def _shared(row: Cells, of_item: Mapping[str, str], item: int, task: str) -> dict[str, Any]:
    """What a row of several outcomes says of its item, else its number and the task.

    of_item: the columns of fields that have a name of their own in this format.
    """
    named = {field: row[field] for field in OF_ITEM if field in row}
    return {"item": item, "task": task, **named, **{field: row.get(column) for field, column in of_item.items()}}


def _rows(table: Iterable[Cells]) -> Iterator[tuple[int, Cells]]:
    """The rows that hold something, with their numbers: a spreadsheet leaves empty ones behind."""
    return (
        (number, row) for number, row in enumerate(table, 1) if any(cell not in (None, "") for cell in row.values())
    )


def _check_columns(table: Sequence[Cells], expected: Sequence[str], file: Path) -> None:
    missing = [column for column in expected if column not in table[0]]
    if missing:
        hint = " (without costs give --quality-only)" if missing == ["cost"] else ""
        raise UserError(
            f"{file} has no column {missing[0]}{hint}: expected {', '.join(expected)}, separated by commas, got "
            f"{shown(', '.join(table[0]))}"
        )


def read_rows(cells: Iterable[tuple[int, Cells]], fields: Sequence[str], file: Path) -> Iterator[Row]:
    """What the cells, each with the number of its row, say of these fields."""
    row = "entry" if file.suffix in (".json", ".jsonl") else "data row"
    for number, of in cells:
        given = {field: of[field] for field in fields if not _is_missing(field, of.get(field))}
        needed = ("score", "cost", "latency")
        missing = next((field for field in needed if field in fields and field not in given), "")
        where = f"{file}: {row} {number}"
        try:
            outcome = Row.model_validate({"score": 0.0, **given, "where": where, "missing": missing})
        except ValidationError as error:
            raise UserError(f"{where}: {one_line(error)}") from None
        for field in ("item", "task", "model", *(["kind"] if outcome.kind else [])):
            check_name(getattr(outcome, field), f"{where}: {field}")
        yield outcome


def _check_outcomes(rows: Sequence[Row], file: Path) -> None:
    """Raise UserError if a model, or all of them, have no outcome in a file: it would vanish from every table."""
    found = {row.model for row in rows if not row.missing}
    lacking = next((row.model for row in rows if row.model not in found), None)
    if lacking is not None:
        lacks = {row.missing for row in rows if row.model == lacking or not found}
        needed, hint = "score and a cost", "without costs give --quality-only, else "
        if lacks == {"score"}:
            needed, hint = "score", ""
        elif "latency" in lacks:
            needed, hint = "score and a latency", "remove the column latency, or "
        whose, remove = (f" of {lacking}", ", or remove the model") if found else ("", "")
        raise UserError(f"{file}: no row{whose} has a {needed}; {hint}complete the table{remove}")


def check_models(outcomes: Iterable[Row]) -> None:
    """Raise UserError if two models differ by case or spaces alone, or the files are of different models."""
    alike: dict[str, Row] = {}
    of_file: dict[str, set[str]] = {}
    for row in outcomes:
        known = alike.setdefault(unicodedata.normalize("NFC", "".join(row.model.casefold().split())), row)
        if known.model != row.model:
            raise UserError(
                f"{row.where}: model {row.model} differs from {known.model} ({known.where}) by case or spaces alone; "
                "write both alike, or rename one"
            )
        of_file.setdefault(row.where.rpartition(": ")[0], set()).add(row.model)
    (first, models), *others = of_file.items()
    for file, found in others:
        if found != models:
            only = sorted(found ^ models)[0]
            has, lacks = (first, file) if only in models else (file, first)
            raise UserError(f"{has} has outcomes of {only}, {lacks} has none; each file is a split, with every model")


def build(
    outcomes: Sequence[Row], cost_model: CostModel, drop_incomplete: bool
) -> tuple[Tree, dict[str, list[str]], dict[str, int]]:
    """The tree of one hop, the items' names by task in the order of `doc_id`, and how many items were left out.

    Of items that ask the same one stays, since they would be on both sides of a split: of the test items before those
    of validation and train, and of one split the first.
    """
    check_models(outcomes)
    models = list(dict.fromkeys(outcome.model for outcome in outcomes))
    check_distinct(dict.fromkeys(outcome.task for outcome in outcomes), "task")
    by_item: dict[tuple[str, str, str, Split | None], dict[str, Row]] = {}
    for outcome in outcomes:
        of_item = by_item.setdefault((outcome.task, outcome.item, outcome.prompt, outcome.split), {})
        before = of_item.setdefault(outcome.model, outcome)
        if before is not outcome and not before.missing and not outcome.missing:
            raise UserError(
                f"{outcome.where}: a second outcome of {outcome.model} for item {outcome.item} of {outcome.task}, "
                f"after {before.where}; one is expected"
            )
        if before.missing:
            of_item[outcome.model] = outcome
    outcomes_of = {
        key: {model: row for model, row in found.items() if not row.missing} for key, found in by_item.items()
    }
    whole = {key: found for key, found in outcomes_of.items() if len(found) == len(models)}
    dropped = len(by_item) - len(whole)
    if dropped and not drop_incomplete:
        key = next(key for key in by_item if key not in whole)
        (task, item, prompt, split), where = key, _where(by_item[key])
        if any(other[:3] == key[:3] and other[3] != split for other in by_item):
            raise UserError(f"{where}: item {item} of {task} has several splits; one is expected")
        lacking = next(model for model in models if model not in outcomes_of[key])
        hint = ", or leave these items out with --drop-incomplete" if whole else ""
        raise UserError(
            f"{where}: item {item} of {task}, with the prompt {shown(prompt)}, has no outcome of {lacking} "
            f"({dropped} of {len(by_item)} items are incomplete); complete the table{hint}"
        )
    if not whole:
        rarest = min(models, key=lambda model: sum(model in found for found in outcomes_of.values()))
        raise UserError(
            f"no item has an outcome of every model ({rarest} has the fewest); complete the table, or remove a model"
        )
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
            raise UserError(
                f"{_where(found)}: item {name} of {task} has another prompt before; give each prompt its own item"
            )
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
            made = Generation(row.response, 0, 0, "stop", row.latency or 0.0, row.cost)
            tree.put(index, 1 + action, made, row.score)
    if all(row.latency is not None for found in rows for row in found.values()):
        tree.timing = (IN_TABLE,) * len(models)
    return tree, names, {"incomplete": dropped, **repeated}


def _where(of_item: Mapping[str, Row]) -> str:
    return next(iter(of_item.values())).where


def _charger(models: Iterable[str], prices: Sequence[str], tokenizer_name: str | None) -> Callable[[Row], float]:
    """Dollars of a call, from MODEL=INPUT,OUTPUT in US$ per million tokens and a tokenizer's count of the two texts."""
    price_of = read_prices(prices)
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
