import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pools import UserError
from pools.data.recording import FORMAT, load_recording, save_recording, seal_recording


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
    for name in ("known", "score", "tokens_in", "tokens_out"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(tree, name))
    for item in range(5):
        for node in range(tree.nodes):
            assert loaded.context(item, node) == tree.context(item, node)
            if node:
                assert loaded.generation(item, node) == tree.generation(item, node)
    assert len(set(loaded.contexts)) == len(loaded.contexts) == len(tree.contexts)
    assert list(loaded.rows()) == list(tree.rows())
    loaded.require(*np.indices(loaded.known.shape))  # all there, so nobody is asked


def test_an_incomplete_tree(synthetic_tree, made_up_pool, tmp_path):
    tree = synthetic_tree(items=3, max_hops=2, complete=False)
    tree.require([0, 2], [4, 1])
    save_recording(tree, made_up_pool, {}, tmp_path / "r")
    recording = load_recording(tmp_path / "r")
    assert recording.manifest["complete"] is False
    np.testing.assert_array_equal(recording.tree.known, tree.known)
    with pytest.raises(UserError, match="has no response"):
        recording.tree.require([1], [1])


def _only(folder):
    return [p.name for p in folder.parent.iterdir()]


def test_a_recording_is_replaced(synthetic_tree, made_up_pool, folder):
    save_recording(synthetic_tree(items=2), made_up_pool, {}, folder)
    assert len(load_recording(folder).tree.items) == 2
    assert _only(folder) == ["recording"]


def test_other_things_are_not(tree, made_up_pool, tmp_path):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(UserError, match="is no recording"):
        save_recording(tree, made_up_pool, {}, other)
    with pytest.raises(UserError, match="is no recording"):
        save_recording(tree, made_up_pool, {}, other / "chapter.txt")
    assert (other / "chapter.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    save_recording(tree, made_up_pool, {}, tmp_path / "empty")
    assert load_recording(tmp_path / "empty").tree.complete


def test_a_failed_save_leaves_the_old_recording_and_nothing_else(tree, made_up_pool, folder):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(TypeError):
        save_recording(tree, made_up_pool, {"note": object()}, folder)  # JSON cannot hold it: the last file fails
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert _only(folder) == ["recording"]
    with pytest.raises(TypeError):
        save_recording(tree, made_up_pool, {"note": object()}, folder.parent / "new")
    assert _only(folder) == ["recording"]


def test_what_an_interrupted_save_left_does_no_harm(tree, made_up_pool, folder):
    files = {path.name for path in folder.iterdir()}
    shutil.copytree(folder, folder / ".manifest.json.partial")
    assert load_recording(folder).manifest["suite"] == "made-up"
    save_recording(tree, made_up_pool, {}, folder)
    assert {path.name for path in folder.iterdir()} == files


@pytest.mark.parametrize("name", ["manifest.json", "items.parquet", "transitions.parquet"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"is not a recording: it has no {name}") as error:
        load_recording(folder)
    assert "\n" not in str(error.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match="is not a recording"):
        load_recording(tmp_path / "none")


@pytest.mark.parametrize("name", ["manifest.json", "items.parquet", "transitions.parquet"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file(folder, name, damage):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no such\nthing"}[damage])
    with pytest.raises(UserError, match="cannot be read") as error:
        load_recording(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [0, FORMAT + 1, None, "1"])
def test_another_format(folder, number):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": number}))
    with pytest.raises(UserError, match=f"has format {number}, this version reads {FORMAT}"):
        load_recording(folder)


def _edit_manifest(folder, **change):
    manifest = {**json.loads((folder / "manifest.json").read_text()), **change}
    (folder / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))


def _edit_rows(folder, edit, name="transitions.parquet"):
    table = pq.read_table(folder / name)
    pq.write_table(table.from_pylist(edit(table.to_pylist()), schema=table.schema), folder / name)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "manifest.json").write_text("[]"),
        lambda f: _edit_manifest(f, pool=None),
        lambda f: _edit_manifest(f, max_hops=None),
        lambda f: _edit_manifest(f, max_hops=1),  # the pipelines are longer
        lambda f: _edit_rows(f, lambda rows: [{**r, "doc_id": r["doc_id"] + 1} for r in rows]),
        lambda f: _edit_rows(f, lambda rows: [{**r, "pipeline": ["stranger"]} for r in rows]),
        lambda f: _edit_rows(f, lambda rows: [r for r in rows if len(r["pipeline"]) > 1]),
        lambda f: pq.write_table(
            pq.read_table(f / "transitions.parquet").drop_columns(["score"]), f / "transitions.parquet"
        ),
        lambda f: pq.write_table(pq.read_table(f / "items.parquet").drop_columns(["split"]), f / "items.parquet"),
    ],
)
def test_files_that_do_not_belong_together(folder, damage):
    damage(folder)
    if isinstance(json.loads((folder / "manifest.json").read_text()), dict):
        seal_recording(folder)  # it is not the checksums that notice
    with pytest.raises(UserError, match=r"pool|cannot be read|has format") as error:
        load_recording(folder)
    assert "\n" not in str(error.value)


def test_what_was_changed_after_it_was_written_is_refused(folder):
    _edit_manifest(folder, note="another")
    with pytest.raises(UserError, match=r"manifest is not what was written.*fetch it again"):
        load_recording(folder)
    seal_recording(folder)
    _edit_rows(folder, lambda rows: [{**r, "response": r["response"] + "!"} for r in rows])
    with pytest.raises(UserError, match=r"transitions\.parquet is not what was written.*fetch it again"):
        load_recording(folder)
    _edit_manifest(folder, sha256=None, checksum=None)  # as recordings were before they had checksums
    assert load_recording(folder).tree.generation(0, 1).response.endswith("!")


def test_the_pool_travels_with_it(tree, made_up_pool, tmp_path):
    first = replace(made_up_pool.models[0], template="{{ query }}?", arguments={"dtype": "float32"}, batch_size=3)
    pool = replace(made_up_pool, models=(first, made_up_pool.models[1]), description="two")
    save_recording(tree, pool, {}, tmp_path / "r")
    assert load_recording(tmp_path / "r").pool == pool
