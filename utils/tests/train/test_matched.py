"""The study at equal accuracy: runs stop where they should, and a stopped study goes on."""

from __future__ import annotations

import json

import pytest
import torch

from utils import data, models
from utils.data import ImageSet
from utils.tests.conftest import images, tiny
from utils.train import matched


def easy(n: int, seed: int) -> ImageSet:
    """Dark and bright pictures: learned in a few steps."""
    labels = torch.arange(n) % 2
    pictures = images(n, seed=seed) // 4 + 150 * labels[:, None, None, None].to(torch.uint8)
    return ImageSet(pictures, labels, ("dark", "bright"), "two greys")


PARTS = data.Splits(easy(64, 0), easy(40, 1), easy(20, 2), {})


def test_training_pauses_at_each_level_and_repeats_with_the_seed():
    def stops(seed: int) -> list[dict]:
        model, seen = tiny(classes=2), []
        for stop in matched.train_to(model, PARTS, (0.9, 0.4), seed, most=60):
            assert not model.training  # measured in eval mode
            assert matched.share_correct(model, PARTS.val) == pytest.approx(stop["val_accuracy"])
            seen.append(stop)
        return seen

    low, high = first = stops(0)
    assert (low["level"], high["level"]) == (0.4, 0.9) and low["steps"] <= high["steps"]
    assert all(stop["val_accuracy"] >= stop["level"] for stop in first)
    assert stops(0) == first


def test_a_level_out_of_reach_ends_after_the_last_step():
    assert list(matched.train_to(tiny(classes=2), PARTS, (1.1,), 0, most=3)) == []


def test_what_is_measured():
    row = matched.measure_network(
        tiny(classes=2), PARTS.test, scored=3, damaged=4, tested=20, samples=2
    )
    assert row["iav"].shape == row["other"].shape == row["entropy"].shape == (2, 3)
    assert not torch.equal(row["iav"], row["other"])
    assert row["damaged"].shape == (3 * len(data.CORRUPTIONS),)
    assert 0 <= row["accuracy"] <= 1 and 0 < row["floor"] <= 1


def test_a_stopped_study_goes_on_and_other_settings_start_afresh(monkeypatch, tmp_path):
    calls = []

    def run(arch, name, seed, parts):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append((name, seed))
        table = [[0.1, 0.2]]
        tables = dict(damaged=[0.5], iav=table, other=table, entropy=table, floor=0.9)
        return [{"start": name, "seed": seed, "level": 0.3, "steps": 4, "accuracy": 0.3} | tables]

    monkeypatch.setattr(matched, "WEIGHTS", tmp_path)
    monkeypatch.setattr(matched, "SEEDS", (0, 1))
    monkeypatch.setattr(matched, "_run", run)
    monkeypatch.setattr(models, "card", lambda arch, name: {"sha256": name})
    monkeypatch.setattr(data, "splits", lambda chosen: PARTS)
    assert matched.load_matched("tiny") is None
    with pytest.raises(KeyboardInterrupt):
        matched.study("tiny", "the command")
    calls.insert(0, ("stopped once", 0))
    calls.append(("and gone on", 0))
    monkeypatch.setattr(matched, "_run", lambda *a: (calls.append(a[1:3]), [])[1])
    matched.study("tiny", "the command")
    made = [call for call in calls if call[0] in matched.STARTS]
    assert len(made) == len(set(made)) == 8 and made[-1] == ("random", 1)
    rows = matched.load_matched("tiny")["runs"]
    assert len(rows) == 3 and rows[0]["iav"].shape == (1, 2)
    monkeypatch.setattr(matched, "MOST", 5)
    assert len(matched.study("tiny", "the command")["finished"]) == 8
    assert json.loads(matched.result_file("tiny").read_text())["runs"] == []
