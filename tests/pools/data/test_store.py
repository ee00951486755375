import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pools
from pools import Context, Generation, GenerationSettings, UserError, content_hash
from pools.data.store import TransitionStore, transition_key

SETTINGS = GenerationSettings(("\n\n", "Q:"), 64)
ROOT = Path(pools.__file__).parent.parent


def _made(text, seconds=0.1):
    return Generation(text, 12, 3, "stop", seconds)


def test_a_prefill_is_part_of_the_address_and_none_leaves_it_as_it_was():
    asked = Context("What is 2+2?", ("4",))
    before = {"query": "What is 2+2?", "responses": ["4"]}
    assert transition_key("f", SETTINGS, asked) == content_hash("f", asdict(SETTINGS), before)
    assert transition_key("f", SETTINGS, replace(asked, prefill=" It is")) != transition_key("f", SETTINGS, asked)


def test_exact_replay(tmp_path):
    context = Context("What is 2+2?\n\tÄ 漢 \u2028 \x00 'quote\"", ("4", "", "four \U0001f600"))
    made = Generation('The answer:\n "4" \\ \x00 ☃', 7, 5, "length", 0.1 + 0.2)
    store = TransitionStore(tmp_path / "deep" / "er" / "store.sqlite")
    assert store.get("model", SETTINGS, context) is None
    assert store.put("model", [(context, SETTINGS, made)]) == [made]
    store.close()
    again = TransitionStore(store.path)
    assert again.get("model", SETTINGS, context) == made
    assert len(again) == 1
    assert [(s.hits, s.misses) for s in (store, again)] == [(0, 1), (1, 0)]


def test_the_key_tells_everything_apart():
    one, context = GenerationSettings(("\n\n", "Q:"), 64), Context("q", ("r",))
    requests = [("m", one, context), ("n", one, context)]
    requests += [("m", GenerationSettings(until, 64), context) for until in ((), ("Q:", "\n\n"))]
    requests += [("m", GenerationSettings(one.until, 65), context)]
    requests += [("m", one, other) for other in (Context("q"), Context("q", ("r", "")), Context("qr"))]
    assert len({transition_key(*request) for request in requests}) == len(requests)


def test_the_first_response_stays(tmp_path):
    first, second = TransitionStore(tmp_path / "s"), TransitionStore(tmp_path / "s")
    entries = [(Context(str(n)), SETTINGS) for n in range(3)]
    first.put("m", [(*entries[1], _made("first"))])
    held = second.put("m", [(*entry, _made("second")) for entry in entries])
    assert [generation.response for generation in held] == ["second", "first", "second"]
    assert [first.get("m", s, c).response for c, s in entries] == ["second", "first", "second"]
    assert len(first) == 3


def test_many_open_a_new_store_at_once(tmp_path):
    for number in range(10):
        barrier, path = threading.Barrier(8), tmp_path / f"s{number}"

        def use(worker, barrier=barrier, path=path):
            barrier.wait()
            store = TransitionStore(path)
            store.put("m", [(Context(str(worker)), SETTINGS, _made("a"))])
            return len(store)

        with ThreadPoolExecutor(8) as threads:
            assert max(threads.map(use, range(8))) == 8


# Writes batches of five and prints the numbers of those that are committed. argv: path, seed, batches.
WRITER = """
import random, sys
from pathlib import Path
from pools import Context, Generation, GenerationSettings
from pools.data.store import TransitionStore

path, seed, batches = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
draw = random.Random(seed)
store = TransitionStore(Path(path))
for _ in range(batches):
    numbers = [draw.randrange(400) for _ in range(5)]
    held = store.put("m", [
        (Context(f"query {n}"), GenerationSettings((), 9), Generation(f"{n} by {seed}", n, 1, "stop", 0.0))
        for n in numbers
    ])
    for n, generation in zip(numbers, held):
        print(n, generation.response, flush=True)
"""


def _writer(path, seed, batches):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(seed), str(batches)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def _start(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def _finish(process):
    """All that it still prints, and its exit status. Not `communicate`: that forgets what `readline` read ahead."""
    with process:
        return process.stdout.read(), process.stderr.read(), process.wait(timeout=60)


@pytest.mark.parametrize("seed", range(3))
def test_writers_at_once_and_a_killed_one_lose_nothing_that_was_committed(tmp_path, seed, counted):
    """They also create the file at once, and collide on most keys."""
    path = tmp_path / "s"
    victim, *others = [_writer(path, seed, 100_000), *(_writer(path, seed + 100 * n, 20) for n in (1, 2, 3))]
    for writer in (victim, *others):
        _start(writer)
    first = victim.stdout.readline()
    time.sleep(random.Random(seed).uniform(0, 0.1))
    os.kill(victim.pid, signal.SIGKILL)
    rest, _, status = _finish(victim)
    assert status == -signal.SIGKILL
    printed = (first + rest).rsplit("\n", 1)[0].splitlines()  # the last line may be cut off
    assert printed
    for writer in others:
        out, err, status = _finish(writer)
        assert (status, err, out.count("\n")) == (0, "", 100)
        printed += out.splitlines()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store = TransitionStore(path)
    for line in printed:
        number, response = line.split(" ", 1)
        held = store.get("m", GenerationSettings((), 9), Context(f"query {number}"))
        assert (held.response, held.tokens_in) == (response, int(number))
    assert len({line.split()[-1] for line in printed}) > 1  # more than one of them wrote
    counted("SIGKILL", "writer of a store", 1, lost=0)


def _entries(model):
    return [(Context(f"q {n}", ("ä", "b") * n), SETTINGS, _made(f"{model} {n}", 0.25)) for n in range(4)]


def _filled(path):
    store = TransitionStore(path)
    for model in ("m", "n"):
        store.put(model, _entries(model))
    return store


def test_parquet_round_trip(tmp_path):
    file = tmp_path / "new" / "store.parquet"
    assert _filled(tmp_path / "s").export_parquet(file) == 8
    assert [p.name for p in file.parent.iterdir()] == ["store.parquet"]
    other = TransitionStore(tmp_path / "other")
    other.put("m", [(Context("q 0"), SETTINGS, _made("was there before"))])
    assert other.import_parquet(file) == 7
    assert other.import_parquet(file) == 0
    assert other.get("m", SETTINGS, Context("q 0")).response == "was there before"
    for model in ("m", "n"):
        for context, settings, made in _entries(model)[model == "m" :]:
            assert other.get(model, settings, context) == made
    assert TransitionStore(tmp_path / "empty").export_parquet(file) == 0
    assert TransitionStore(tmp_path / "t").import_parquet(file) == 0


def test_every_response_keeps_how_it_was_made(tmp_path):
    old, new = {"versions": {"torch": "1"}}, {"versions": {"torch": "2"}, "batching": "of ü"}
    stores = [TransitionStore(tmp_path / "s", made) for made in (None, old, new)]
    keys = []
    for number, store in enumerate(stores):
        entries = [(Context(f"q {number} {n}"), SETTINGS, _made("a")) for n in range(number + 1)]
        store.put("m", entries)
        keys += [transition_key("m", settings, context) for context, settings, _ in entries]
    stores[2].put("m", [(Context("q 1 0"), SETTINGS, _made("too late"))])  # as the first response, its provenance stays
    stores[2].put("m", [(Context("elsewhere"), SETTINGS, _made("a"))], {"recording": "r"})
    assert stores[0].provenance(keys) == [(3, new), (2, old), (1, None)]
    assert stores[0].export_parquet(tmp_path / "store.parquet") == 7
    other = TransitionStore(tmp_path / "other", {"not": "of these"})
    other.import_parquet(tmp_path / "store.parquet")
    assert other.provenance(keys) == [(3, new), (2, old), (1, None)]
    assert other.provenance([transition_key("m", SETTINGS, Context("elsewhere"))]) == [(1, {"recording": "r"})]


def _changed(table):
    responses = table["response"].to_pylist()
    return table.set_column(table.column_names.index("response"), "response", [["other", *responses[1:]]])


@pytest.mark.parametrize(
    "change",
    [
        _changed,
        lambda table: table.slice(1),
        lambda table: table.drop_columns(["response"]),
        lambda table: table.replace_schema_metadata(None),
    ],
)
def test_an_export_that_is_not_what_was_exported_is_refused(tmp_path, change):
    file, store = tmp_path / "store.parquet", TransitionStore(tmp_path / "other")
    _filled(tmp_path / "s").export_parquet(file)
    pq.write_table(change(pq.read_table(file)), file)
    for path in (file, tmp_path / "missing.parquet"):
        with pytest.raises(UserError, match="not an exported transition store, or is damaged") as error:
            store.import_parquet(path)
        assert "\n" not in str(error.value)
    assert len(store) == 0


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "text").write_text("no database, but long enough to look at it " * 100)
    with sqlite3.connect(tmp_path / "foreign") as connection:
        connection.execute("CREATE TABLE transition (id INTEGER)")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "text", tmp_path / "foreign", tmp_path / "folder", tmp_path / "text" / "below"):
        with pytest.raises(UserError, match=r"cannot use .* as a transition store") as error:
            TransitionStore(path)
        assert "\n" not in str(error.value)
    assert (tmp_path / "text").read_text().startswith("no database")
