"""Near-copies are found, whatever was done to the pictures, and nothing else is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from utils import data
from utils.data import shapes
from utils.data.copies import looks, near_copies
from utils.tests.data.pictures import noise


def scenes(n: int, seed: int) -> torch.Tensor:
    """Smooth random pictures, as different from each other as photographs are."""
    coarse = noise(n, 6, 6, seed).float()
    return F.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 255).to(torch.uint8)


DAMAGE = {
    "darker, with less contrast": lambda x: (x.float() * 0.6 + 30).to(torch.uint8),
    "noisy": lambda x: data.corrupt(x, "noise", 1),
    "blurred": lambda x: data.corrupt(x, "blur", 1),
    "larger": lambda x: F.interpolate(x.float(), (80, 80), mode="bilinear").to(torch.uint8),
    "smaller": lambda x: F.interpolate(x.float(), (20, 20), mode="area").to(torch.uint8),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_planted_copies_are_found_and_counted(damage):
    train, test = scenes(300, 1), scenes(80, 2)
    assert near_copies(train, test).images == 0
    copies = DAMAGE[damage](train[40:50])
    whole = test if copies.shape == train[40:50].shape else None
    found = near_copies(train, copies if whole is None else torch.cat([test, copies]))
    first = 0 if whole is None else 80
    assert found.images == 10 and found.share == 10 / (first + 10)
    assert sorted(found.test.tolist()) == list(range(first, first + 10))
    assert torch.equal(found.train, found.test - first + 40)
    assert found.correlation.min() > 0.95 and (found.correlation.diff() <= 0).all()


def test_the_rough_search_loses_no_pair():
    """Against every pair compared in full."""
    images, _ = shapes.draw(torch.arange(600) % 10, seed=5)
    train, test = images[:400], images[400:]
    full = looks(test) @ looks(train).T
    for above in (0.8, 0.85, 0.9):
        rows, places = (full > above).nonzero(as_tuple=True)
        found = near_copies(train, test, above)
        pairs = set(zip(found.test.tolist(), found.train.tolist(), strict=True))
        assert pairs == set(zip(rows.tolist(), places.tolist(), strict=True))


def test_flat_pictures_are_like_nothing():
    flat = torch.full((3, 3, 32, 32), 77, dtype=torch.uint8)
    assert near_copies(flat, flat).images == 0


def test_an_image_with_two_copies_counts_once():
    train = scenes(5, 3)
    found = near_copies(torch.cat([train, train]), train[:2])
    assert len(found.test) == 4 and found.images == 2 and found.share == 1


@pytest.mark.real_data
def test_cifar10s_near_copies_show_the_same_thing():
    """Known since Barz & Denzler (2020): such pairs are one photograph, so their labels agree."""
    train, test = data.load("cifar10", "train"), data.load("cifar10", "test")
    part = test.subset(range(1500))
    found = near_copies(train.images, part.images)
    assert 5 < found.images < 50
    assert (train.labels[found.train] == part.labels[found.test]).float().mean() > 0.9
