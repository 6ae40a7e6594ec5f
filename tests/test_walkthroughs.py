"""The walkthroughs run offline, draw their pictures, and are the same as notebooks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).resolve().parent.parent
WALKTHROUGHS = sorted((ROOT / "examples" / "walkthroughs").glob("*.py"))
NOTEBOOKS = ROOT / "notebooks"


@pytest.mark.parametrize("path", WALKTHROUGHS, ids=lambda path: path.stem)
def test_walkthroughs_run_and_draw(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    picture = tmp_path / "out" / f"{path.stem.partition('_')[2]}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", WALKTHROUGHS, ids=lambda path: path.stem)
def test_walkthroughs_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 80


def test_each_walkthrough_is_a_notebook_without_outputs() -> None:
    """`make notebooks` writes them."""
    notebooks = {path.stem: jupytext.read(path) for path in NOTEBOOKS.glob("*.ipynb")}
    assert sorted(notebooks) == [path.stem for path in WALKTHROUGHS]
    for path in WALKTHROUGHS:
        cells = [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
        assert [(cell.cell_type, cell.source) for cell in notebooks[path.stem].cells] == cells
        assert not any(cell.get("outputs") for cell in notebooks[path.stem].cells)
