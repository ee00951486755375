"""Files that are written whole or not at all: what the tests of whole commands do not reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from pools.files import finish_moving, whole_folder


def test_a_result_replaces_what_it_makes_obsolete_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    with whole_folder(folder, "last") as partial:
        for name in ("last", "gone", "both"):
            (partial / name).write_text("old")
    (folder / "mine").write_text("mine")
    with whole_folder(folder, "last", lambda: ["gone", "both", "never"]) as partial:
        (partial / "below").mkdir()
        for name in ("last", "both", "below/it"):
            (partial / name).write_text("new")
    there = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert there == {"last": "new", "both": "new", "below/it": "new", "mine": "mine"}


def test_a_result_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    for folder in (tmp_path / "x", tmp_path / "none"):
        if folder.name == "x":
            with whole_folder(folder, "last") as partial:
                (partial / "last").write_text("old")
        with pytest.raises(ZeroDivisionError), whole_folder(folder, "last", lambda: ["last"]) as partial:
            (partial / "last").write_text("new")
            1 / 0  # noqa: B018
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["last"] and not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["../precious", "{above}/precious", "link/precious", "", ".", "..", "y/../.."])
def test_a_folder_from_elsewhere_removes_nothing_outside_nor_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Reading it finishes what somebody else's process began, or says that it began."""
    folder = tmp_path / "x"
    (folder / ".last.partial").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    for mine in (tmp_path / "precious", folder / "mine"):
        mine.write_text("years of work")
    (folder / ".last.partial" / "last").write_text("new")
    (folder / ".last.partial" / ".complete").write_text(name.format(above=tmp_path))
    monkeypatch.chdir(folder)
    finish_moving(Path(), "last")
    assert (tmp_path / "precious").read_text() == (folder / "mine").read_text() == "years of work"
    assert sorted(path.name for path in folder.iterdir()) == ["last", "link", "mine"]


def test_a_folder_from_elsewhere_writes_nothing_through_its_links(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("years of work")
    folder = tmp_path / "x"
    (folder / ".last.partial" / "link").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    for name in ("last", "link/precious", "link/new", ".complete"):
        (folder / ".last.partial" / name).write_text("")
    finish_moving(folder, "last")
    assert (tmp_path / "precious").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "x"]
    assert sorted(path.name for path in folder.iterdir()) == ["last", "link"]
