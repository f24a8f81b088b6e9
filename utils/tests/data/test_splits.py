"""Image sets and their three disjoint parts, down to a dozen images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils import data, env
from utils.data import sources
from utils.data.sets import draw_rows
from utils.tests.data.pictures import noise, plant

IDENTITY = dict(mean=(0.0,) * 3, std=(1 / 255,) * 3)  # levels in, levels out
PROFILE = env.PROFILES["smoke"]
REAL = env.DATA / "cifar10" / "train"


# ---------------------------------------------------------------- one image set


def test_wrong_label_count_and_one_class():
    with pytest.raises(ValueError, match="mine: 3 images but 2 labels"):
        data.ImageSet(noise(3, 8, 8), torch.tensor([0, 1]), ("a", "b"), "mine")
    with pytest.raises(ValueError, match="mine holds one class"):
        data.ImageSet(noise(2, 8, 8), torch.tensor([0, 0]), ("a",), "mine")


def test_subset_keeps_order_and_masks():
    whole = data.load("shapes10")
    part = whole.subset([5, 3, 9])
    assert torch.equal(part.images, whole.images[[5, 3, 9]])
    assert torch.equal(part.labels, whole.labels[[5, 3, 9]]) and torch.equal(
        part.masks, whole.masks[[5, 3, 9]]
    )
    assert sum(whole.class_counts().values()) == len(whole)
    assert set(whole.class_counts().values()) == {500}


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize("source", ["shapes10", "digits"])
def test_splits_are_seeded_disjoint_and_stratified(source):
    chosen = env.replace(PROFILE, source=source, n_train=300, n_val=60, n_test=100)
    one, same = data.splits(chosen), data.splits(chosen)
    assert [len(s) for s in (one.train, one.val, one.test)] == [300, 60, 100]
    for key, at in one.indices.items():
        assert np.array_equal(at, same.indices[key]) and len(set(at)) == len(at)
    assert not set(one.indices["train"]) & set(one.indices["val"])
    other = data.splits(env.replace(chosen, seed=1))
    assert set(other.indices["train"]) != set(one.indices["train"])
    pool = data.load(source)
    shares = torch.bincount(pool.labels) / len(pool)
    for part in (one.train, one.val):
        assert (torch.bincount(part.labels) - shares * len(part)).abs().max() <= 1
    assert torch.equal(one.train.labels, pool.labels[one.indices["train"]])


def test_paper_draws_from_the_first_5000_of_cifar10(monkeypatch):
    labels = torch.arange(6000) % 10
    whole = data.ImageSet(noise(6000, 2, 2), labels, tuple("abcdefghij"), "CIFAR-10 (fake)")
    monkeypatch.setitem(sources.READERS, "auto", lambda split: whole)
    paper = data.splits(env.PROFILES["paper"])
    assert [len(p) for p in (paper.train, paper.val, paper.test)] == [4050, 450, 2500]
    drawn = np.concatenate([paper.indices["train"], paper.indices["val"]])
    assert drawn.max() < 5000 and len(set(drawn)) == 4500
    assert set(paper.train.class_counts().values()) == {405}
    assert set(paper.val.class_counts().values()) == {45}
    assert set(paper.test.class_counts().values()) == {250}
    full = data.splits(env.replace(env.PROFILES["full"], n_train=5000, n_val=1000))
    assert np.concatenate([full.indices["train"], full.indices["val"]]).max() >= 5000


def test_a_big_folder_sorted_by_class_keeps_all_its_classes(monkeypatch):
    labels = torch.arange(6000) // 3000
    whole = data.ImageSet(noise(6000, 1, 1), labels, ("cat", "dog"), "folder:pets")
    monkeypatch.setitem(sources.READERS, "auto", lambda split: whole)
    assert set(data.splits(env.PROFILES["demo"]).train.class_counts().values()) == {2025}


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("left", [0, 1, 5])
def test_any_size_can_be_drawn(stratify, left):
    """Sets that leave fewer images than there are classes, or hold a class of one image."""
    labels = np.array([0] * 50 + [1] * 49 + [2])
    parts = draw_rows(labels, (80 - left, 20), 0, stratify)
    assert [len(p) for p in parts] == [80 - left, 20]
    assert len(set(np.concatenate(parts))) == 100 - left
    (everything,) = draw_rows(labels, (1000,), 0, stratify)
    assert sorted(everything) == list(range(100))


def test_small_set_is_shared_out_and_said(capsys):
    parts = data.splits(env.replace(PROFILE, source="digits", n_train=9000, n_val=1000))
    n = len(data.load("digits"))
    assert len(parts.train) + len(parts.val) == n and len(parts.val) == round(n / 10)
    assert (
        f"scikit-learn digits has fewer images than the profile smoke asks for: using {n - round(n / 10)}"
        in capsys.readouterr().out
    )


def test_splits_of_different_classes_are_refused(empty, tmp_path):
    plant(tmp_path / "train", {"cat": 3, "dog": 3})
    plant(tmp_path / "test", {"cat": 3, "doge": 3})
    with pytest.raises(ValueError, match="differ in their classes.*dog"):
        data.splits(env.replace(PROFILE, source=f"folder:{tmp_path}"))
