import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import command, fuzz, mutated, told
from pools import UserError
from pools.data.recording import FORMAT, load_recording, save_recording, seal_recording

ITEMS, TRANSITIONS = "items.parquet", "transitions.parquet"


@pytest.fixture
def tree(synthetic_tree):
    return synthetic_tree(items=5, models=2, max_hops=2)


@pytest.fixture
def folder(tree, made_up_pool, tmp_path) -> Path:
    path = tmp_path / "results" / "recording"
    save_recording(tree, made_up_pool, {"suite": "made-up", "note": "ä\n"}, path)
    return path


def test_round_trip(tree, made_up_pool, folder):
    recording = load_recording(folder)
    loaded = recording.tree
    assert recording.pool == made_up_pool
    assert (recording.manifest["suite"], recording.manifest["note"]) == ("made-up", "ä\n")
    assert recording.manifest["format"] == FORMAT
    assert recording.manifest["complete"] is True
    assert (loaded.items, loaded.models, loaded.max_hops) == (tree.items, tree.models, tree.max_hops)
    for name in ("known", "score", "cost"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(tree, name))
    for item in range(5):
        for node in range(tree.nodes):
            assert loaded.context(item, node) == tree.context(item, node)
            if node:
                assert loaded.generation(item, node) == tree.generation(item, node)
    assert len(set(loaded.contexts)) == len(loaded.contexts) == len(tree.contexts)
    assert list(loaded.rows()) == list(tree.rows())
    loaded.require(*np.indices(loaded.known.shape))  # all there, so nobody is asked


def test_what_answers_begin_with_is_kept_in_a_column_of_its_own(tree, made_up_pool, folder, tmp_path):
    assert "prefill" not in pq.read_table(folder / ITEMS).column_names, "files without any are as they were before"
    tree.items = tuple(replace(item, prefill=f" so {item.doc_id}") for item in tree.items)
    save_recording(tree, made_up_pool, {}, tmp_path / "r")
    loaded = load_recording(tmp_path / "r").tree
    assert loaded.items == tree.items
    assert loaded.context(3, 1).prefill == " so 3"


def test_a_cascade_is_kept_as_its_first_hop(synthetic_tree, made_up_pool, tmp_path):
    tree = synthetic_tree(items=5, models=2, max_hops=1).cascade(3)
    tree.answers = "number"
    save_recording(tree, made_up_pool, {}, tmp_path / "r")
    assert len(pq.read_table(tmp_path / "r" / TRANSITIONS)) == 5 * 2
    recording = load_recording(tmp_path / "r")
    loaded, manifest = recording.tree, recording.manifest
    assert (manifest["independent_answers"], manifest["max_hops"], manifest["answers"]) == (True, 3, "number")
    assert (loaded.independent, loaded.max_hops, loaded.answers) == (True, 3, "number") and loaded.complete
    for name in ("known", "score", "cost"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(tree, name))
    for item, node in np.ndindex(5, tree.nodes):
        assert loaded.context(item, node) == tree.context(item, node)
        assert node == 0 or loaded.generation(item, node) == tree.generation(item, node)
    incomplete = pq.read_table(tmp_path / "r" / TRANSITIONS).slice(1)
    pq.write_table(incomplete, tmp_path / "r" / TRANSITIONS)
    seal_recording(tmp_path / "r")
    with pytest.raises(UserError, match="a response is missing"):
        load_recording(tmp_path / "r")


def test_kinds_and_wordings_are_kept(synthetic_tree, made_up_pool, tmp_path):
    tree = synthetic_tree(items=5)
    told = [{"kind": f"kind {n % 2}", "wording": f"How much is {{}} {n % 3}?"} for n in range(5)]
    tree.items = tuple(replace(item, **of) for item, of in zip(tree.items, told, strict=True))
    save_recording(tree, made_up_pool, {}, tmp_path)
    loaded = load_recording(tmp_path).tree
    assert loaded.items == tree.items
    assert [vars(item).items() >= of.items() for item, of in zip(loaded.items, told, strict=True)] == [True] * 5
    assert loaded.select("test").items[0].wording == "How much is {} 2?"


@pytest.mark.parametrize("without", [["wording"], ["kind"], ["kind", "wording"]])
def test_a_recording_without_kinds_or_wordings_is_read(synthetic_tree, made_up_pool, tmp_path, without):
    tree = synthetic_tree(items=5)
    tree.items = tuple(replace(item, kind=f"kind {n}", wording=f"{n}?") for n, item in enumerate(tree.items))
    save_recording(tree, made_up_pool, {}, tmp_path)
    _table(tmp_path, ITEMS, lambda table: table.drop_columns(without))
    seal_recording(tmp_path)
    loaded = load_recording(tmp_path).tree
    assert loaded.items == tuple(replace(item, **dict.fromkeys(without, "")) for item in tree.items)
    assert list(loaded.rows()) == list(tree.rows())


def test_an_incomplete_tree(synthetic_tree, made_up_pool, tmp_path):
    tree = synthetic_tree(items=3, max_hops=2, complete=False)
    tree.require([0, 2], [4, 1])
    save_recording(tree, made_up_pool, {}, tmp_path / "r")
    recording = load_recording(tmp_path / "r")
    assert recording.manifest["complete"] is False
    np.testing.assert_array_equal(recording.tree.known, tree.known)
    with pytest.raises(UserError, match="has no response"):
        recording.tree.require([1], [1])


def test_a_recording_is_replaced_and_other_things_are_not(synthetic_tree, tree, made_up_pool, folder, tmp_path):
    save_recording(synthetic_tree(items=2), made_up_pool, {}, folder)
    assert len(load_recording(folder).tree.items) == 2
    assert {p.name for p in folder.iterdir()} == {"manifest.json", ITEMS, TRANSITIONS}
    with pytest.raises(UserError, match="--force"):
        save_recording(tree, made_up_pool, {}, folder, replace=False)
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    for place in (other, other / "chapter.txt"):
        with pytest.raises(UserError, match="is no recording"):
            save_recording(tree, made_up_pool, {}, place)
    assert [(p.name, p.read_text()) for p in other.iterdir()] == [("chapter.txt", "years of work")]
    (tmp_path / "empty").mkdir()
    save_recording(tree, made_up_pool, {}, tmp_path / "empty")
    assert load_recording(tmp_path / "empty").tree.complete


@pytest.mark.parametrize("name", ["manifest.json", ITEMS, TRANSITIONS])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"is not a recording: it has no {name}") as error:
        load_recording(folder)
    assert "\n" not in str(error.value)


def _manifest(folder, **change):
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


def _column(folder, file, name, change):
    table = pq.read_table(folder / file)
    array = pa.array(change(table[name].to_pylist()))
    pq.write_table(table.set_column(table.column_names.index(name), name, array), folder / file)


def _table(folder, file, change):
    pq.write_table(change(pq.read_table(folder / file)), folder / file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: _manifest(f, format=FORMAT + 1),
        lambda f: _manifest(f, pool=None),
        lambda f: _manifest(f, suite=["x"]),
        lambda f: _manifest(f, suite="made\u202eup"),
        lambda f: _manifest(f, max_hops=None),
        lambda f: _manifest(f, max_hops=1),  # the pipelines are longer
        lambda f: _manifest(f, max_hops=10**9),
        lambda f: [_column(f, name, "task", lambda c: [f"{task} " for task in c]) for name in (ITEMS, TRANSITIONS)],
        lambda f: _column(f, ITEMS, "query", lambda c: [None, *c[1:]]),
        lambda f: _column(f, ITEMS, "kind", lambda kinds: [None, *kinds[1:]]),
        lambda f: _column(f, ITEMS, "kind", lambda kinds: ["a\u200b", *kinds[1:]]),
        lambda f: _column(f, ITEMS, "split", lambda c: ["dev", *c[1:]]),
        lambda f: _column(f, ITEMS, "doc_id", lambda c: [c[1], *c[1:]]),  # an item twice
        lambda f: _column(f, ITEMS, "until", lambda c: [[None], *c[1:]]),
        lambda f: _table(f, ITEMS, lambda table: table.drop_columns(["split"])),
        lambda f: _column(f, TRANSITIONS, "doc_id", lambda c: [n + 1 for n in c]),  # of no item
        lambda f: _column(f, TRANSITIONS, "pipeline", lambda c: [["stranger"], *c[1:]]),
        lambda f: _column(f, TRANSITIONS, "pipeline", lambda c: [c[1], *c[1:]]),  # a response twice
        lambda f: _column(f, TRANSITIONS, "pipeline", lambda c: [[], *c[1:]]),
        lambda f: _column(f, TRANSITIONS, "response", lambda c: [None, *c[1:]]),
        lambda f: _column(f, TRANSITIONS, "score", lambda c: [float("nan"), *c[1:]]),
        lambda f: _column(f, TRANSITIONS, "tokens_in", lambda c: [1.5, *c[1:]]),
        lambda f: _column(f, TRANSITIONS, "tokens_out", lambda c: [-1, *c[1:]]),
        lambda f: _column(f, TRANSITIONS, "finish_reason", lambda c: ["tired", *c[1:]]),
        lambda f: _table(f, TRANSITIONS, lambda table: table.slice(1)),  # without the first hop
    ],
)
def test_what_makes_no_recording_is_refused(folder, damage):
    damage(folder)
    seal_recording(folder)  # it is not the checksums that notice
    with pytest.raises(UserError, match=rf"{folder} cannot be read .*; fetch it again") as error:
        load_recording(folder)
    assert "\n" not in str(error.value)


def test_what_was_changed_after_it_was_written_is_refused(folder):
    _manifest(folder, note="another")
    with pytest.raises(UserError, match=r"manifest is not what was written.*fetch it again"):
        load_recording(folder)
    seal_recording(folder)
    _column(folder, TRANSITIONS, "response", lambda c: [text + "!" for text in c])
    with pytest.raises(UserError, match=r"transitions\.parquet is not what was written.*fetch it again"):
        load_recording(folder)
    seal_recording(folder)
    assert load_recording(folder).tree.generation(0, 1).response.endswith("!")
    _manifest(folder, checksum=None)
    with pytest.raises(UserError, match="`checksum` is missing"):
        load_recording(folder)


def test_the_pool_travels_with_it(tree, made_up_pool, tmp_path):
    first = replace(made_up_pool.models[0], template="{{ query }}?", arguments={"dtype": "float32"}, batch_size=3)
    pool = replace(made_up_pool, models=(first, made_up_pool.models[1]), description="two")
    save_recording(tree, pool, {}, tmp_path / "r")
    assert load_recording(tmp_path / "r").pool == pool


@fuzz("recordings: manifest", 250)
@given(data=st.data())
def test_whatever_a_manifest_says_is_used_or_refused_in_one_line(folder, data):
    path, whole = folder / "manifest.json", folder.parent / "whole.json"
    if not whole.exists():
        shutil.copy(path, whole)
    path.write_text(json.dumps(data.draw(mutated(json.loads(whole.read_text()), surrogates=True))))
    with suppress(ValueError, TypeError, UserError):  # no manifest, or a text that no file of ours holds
        seal_recording(folder)
    recording = told(lambda: load_recording(folder), folder)
    assert recording is None or isinstance(recording.manifest.get("suite"), str | None)


def test_a_recording_of_no_suite_is_refused_where_a_suite_is_needed(folder):
    _manifest(folder, suite=None)
    seal_recording(folder)
    assert "names no suite" in command("run", "--recording", folder, "--router", "random").err
