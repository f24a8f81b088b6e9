"""Notebooks on folders as people have them: a dozen images, two classes, names of every kind.

The code cells run in this process, with untrained networks in the place of the fine-tuned ones.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from PIL import Image
from torch import nn

from utils import data, env, models, train
from utils.report import results
from utils.tests.conftest import images

NAMES = ["a $_$ b", "_柴犬_ <b>", "é" * 80]  # the first would be a formula with an error in it
SHAPES = [(48, 48), (60, 40), (36, 64)]


def plant(folder: Path, counts: dict[str, int]) -> None:
    """Grey photographs of different shapes, counts[name] of each class."""
    for c, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for k, picture in enumerate(images(count, 64, seed=c)):
            grey = Image.fromarray(picture.permute(1, 2, 0).numpy()).convert("L")
            grey.resize(SHAPES[k % len(SHAPES)]).save(folder / name / f"photo {k}.png")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of random weights where the notebooks want fine-tuned ones."""

    def network(arch: str, profile: env.Profile, **_: object) -> nn.Module:
        torch.manual_seed(0)
        return models.build(arch, len(data.splits(profile).test.classes), "none")

    monkeypatch.setattr(train, "explained", network)
    monkeypatch.setattr(train, "finetuned", network)


def run(stem: str) -> None:
    """The code cells of a notebook; AssertionError naming the cell where a check says False."""
    notebook = nbformat.read(next(Path().glob(f"{stem}_*.ipynb")), 4)
    names = {"__name__": stem, "display": lambda *_: None}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        said: list[str] = []
        names["print"] = lambda *words, **_: said.append(" ".join(map(str, words)))  # noqa: B023
        exec(compile(cell.source, cell.id, "exec"), names)
        plt.close("all")
        if "NBVAL_CHECK_OUTPUT" in cell.source:
            assert not [line for line in said if line.endswith("False")], cell.id


DOZEN = {"cat": 6, "dog": 6}
ODD = dict(zip(NAMES, (20, 5, 2), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stem", "counts"),
    [("04", ODD), ("05", DOZEN), ("05", ODD), ("06", DOZEN), ("14", DOZEN)],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} classes",
)
def test_a_notebook_runs_on_a_small_folder(stem, counts, untrained, tmp_path, monkeypatch):
    plant(tmp_path / "photographs", counts)
    monkeypatch.setattr(env, "DATA", tmp_path / "data")
    monkeypatch.setattr(results, "DPI", 20)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    monkeypatch.setenv("XTL_DATA", f"folder:{tmp_path / 'photographs'}")
    monkeypatch.chdir(env.ROOT / "notebooks")
    run(stem)
