"""Figures with captions, and numbers in results.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from utils import env, report

Write = Callable[..., Path]
Plot = Callable[[], Figure]


# ---------------------------------------------------------------- figures


def test_a_figure_carries_its_caption_and_repeats(plot: Plot, tmp_path: Path) -> None:
    file = report.save_figure(plot(), "05_line", "A line ≥ 0,\n  rising.")
    assert file == tmp_path / "figures" / "smoke" / "05_line.png"
    assert report.caption(file) == "A line ≥ 0, rising."
    first = file.read_bytes()
    assert report.save_figure(plot(), "05_line", "A line ≥ 0, rising.").read_bytes() == first
    report.save_figure(plot(), "02_line", "Another.")
    assert [f.name for f in report.figure_files()] == ["02_line.png", "05_line.png"]


def test_few_colours_only_where_nobody_can_tell(plot: Plot) -> None:
    with Image.open(report.save_figure(plot(), "05_line", "A line.")) as plain:
        assert plain.mode == "P"
    photo = Figure(figsize=(3, 3))
    noise = np.random.default_rng(0).random((64, 64, 3))
    photo.add_axes((0, 0, 1, 1)).imshow(noise, interpolation="nearest")
    with Image.open(report.save_figure(photo, "05_photo", "Noise.")) as picture:
        assert picture.mode == "RGB"


@pytest.mark.parametrize(
    ("name", "caption"), [("line", "x"), ("5_line", "x"), ("05_a/b", "x"), ("05_line", " ")]
)
def test_a_figure_without_number_or_caption_is_refused(
    name: str, caption: str, plot: Plot, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="caption" if caption == " " else "05_layers"):
        report.save_figure(plot(), name, caption)
    assert not (tmp_path / "figures").exists()


# ---------------------------------------------------------------- numbers


def test_results_are_merged_rounded_and_sorted(tmp_path: Path) -> None:
    report.save_results(
        "04_evaluation", {"vit.accuracy": 0.123456789, "n": 7}, "Shapes-10", {"vit_mini": "course"}
    )
    report.save_results(
        "04_evaluation",
        {"cnn.accuracy": torch.tensor(0.5), "n": np.int64(8)},
        weights={"cnn": "none"},
    )
    report.save_results("05_gradcam", {"share": np.float32(0.25)}, "scikit-learn digits")
    stored = report.load_results()
    assert stored["04_evaluation"] == {"cnn.accuracy": 0.5, "n": 8, "vit.accuracy": 0.123457}
    assert stored["meta"]["sources"] == {
        "04_evaluation": "Shapes-10",
        "05_gradcam": "scikit-learn digits",
    }
    assert stored["meta"]["weights"] == {"04_evaluation": {"vit_mini": "course", "cnn": "none"}}
    assert {"profile", "data", "weights", "seed", "device", "versions"} <= set(stored["meta"])
    file = tmp_path / "figures" / "smoke" / "results.json"
    assert json.dumps(
        stored, indent=1, sort_keys=True, ensure_ascii=False
    ) + "\n" == file.read_text("utf-8")
    assert [f.name for f in file.parent.iterdir()] == [
        "results.json"
    ]  # no half-written file beside it
    report.forget_results(["04_evaluation"])
    assert set(report.load_results()) == {"meta", "05_gradcam"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    report.save_results("04_evaluation", {"kept": 1.0})
    with pytest.raises(ValueError, match=r"04_evaluation: vit\.accuracy is (nan|inf)"):
        report.save_results("04_evaluation", {"kept": 2.0, "vit.accuracy": value})
    assert report.load_results()["04_evaluation"] == {"kept": 1.0}


def test_each_notebook_keeps_the_weights_that_it_used() -> None:
    """The network that is explained is another one than the one that was fine-tuned."""
    tuned, explained = {"vit_mini": "fine-tuned"}, {"vit_mini": "course weights"}
    report.save_results("03_finetune_vit", {"a": 1}, weights=tuned)
    report.save_results("06_lrp", {"a": 1}, weights=explained)
    report.save_results("07_integrated_gradients", {"a": 1}, weights=explained)
    assert report.weights_used(report.load_results()) == {
        ("vit_mini", "course weights"): ["06_lrp", "07_integrated_gradients"],
        ("vit_mini", "fine-tuned"): ["03_finetune_vit"],
    }
    report.forget_results(["06_lrp", "07_integrated_gradients"])
    assert report.load_results()["meta"]["weights"] == {"03_finetune_vit": tuned}
    assert report.weights_used({}) == {}
    assert report.weights_used({"meta": {"weights": {"vit_mini": "an earlier form"}}}) == {}


def test_no_results_yet() -> None:
    assert report.load_results() == {}


def test_numbers_of_another_run_can_be_dropped() -> None:
    report.save_results("04_evaluation", {"a": 1}, "Shapes-10")
    report.save_results("05_gradcam", {"b": 2}, "scikit-learn digits")
    report.keep_results({"05_gradcam", "06_lrp"})
    stored = report.load_results()
    assert set(stored) == {"meta", "05_gradcam"}
    assert stored["meta"]["sources"] == {"05_gradcam": "scikit-learn digits"}
    report.keep_results(())
    assert report.load_results() == {}


SAVE = """
import sys
from pathlib import Path
from utils import env, report
env.FIGURES, env.RUNS = Path(sys.argv[1]) / "figures", Path(sys.argv[1]) / "runs"
for n in range(20):
    report.save_results(sys.argv[2], {f"n{n}": n})
"""


def test_notebooks_side_by_side_lose_no_number(tmp_path: Path) -> None:
    """Two processes write to one results.json, and each finds the other's numbers intact."""
    run = [sys.executable, "-c", SAVE, str(tmp_path)]
    settings = os.environ | {"XTL_PROFILE": "smoke", "OMP_NUM_THREADS": "1"}
    pair = [subprocess.Popen([*run, stem], cwd=env.ROOT, env=settings) for stem in ("01_a", "02_b")]
    assert [process.wait(120) for process in pair] == [0, 0]
    stored = report.load_results()
    assert len(stored["01_a"]) == len(stored["02_b"]) == 20
