"""The notebooks run from the first cell to the last, and print what they were saved with; also on a real table."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "docs" / "notebooks"
DATA = Path(__file__).parents[2] / "shared" / "data" / "routerbench"
TRAINS = "trains"
"""The tag of cells whose figures another processor may change: gradients are summed in another order."""


def executed(name: str, folder: Path, parameters: str = "") -> Any:
    """The notebook, run in a folder of its own; parameters: code after the cell that is tagged so."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source += f"\n{parameters}"
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def texts(notebook: Any) -> list[list[str]]:
    """What each cell prints and shows, as text; of those that train nothing but what kind of output it is."""
    found = []
    for cell in notebook.cells:
        shown: list[str] = []
        # What is printed comes in as many pieces as the clock has it.
        for kind, outputs in itertools.groupby(cell.get("outputs", []), lambda output: output.output_type):
            if TRAINS in cell.metadata.get("tags", ()):
                shown.append(kind)
            elif kind == "stream":
                shown.append("".join(output.text for output in outputs))
            else:
                shown += [output.data["text/plain"] for output in outputs]
        found.append(shown)
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def test_a_notebook_shows_what_it_was_saved_with(name: str, tmp_path: Path) -> None:
    import nbformat

    saved = nbformat.read(NOTEBOOKS / name, as_version=4)
    made = executed(name, tmp_path)
    assert texts(made) == texts(saved)
    assert any("image/png" in output.get("data", {}) for cell in made.cells for output in cell.get("outputs", []))
    assert not list(tmp_path.iterdir()), "it leaves files in the reader's folder"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no tables of RouterBench under {DATA}")
def test_the_notebook_on_tables_takes_real_ones(tmp_path: Path) -> None:
    files = [str(DATA / f"mbpp_{split}.csv") for split in ("train", "test")]
    made = executed("own-table.ipynb", tmp_path, f"files, cost_weight = {files}, 20")
    shown = "\n".join(text for cell in texts(made) for text in cell)
    assert "11 models, 133 nodes" in shown and "gpt-4" in shown and "fitted-q" in shown
