"""Pairs of classes: cats and dogs from three places, and two shapes."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from utils import data
from utils.data import pairs


@pytest.fixture
def pets(empty):
    """Three small pets in torchvision's layout: a cat and two dogs."""
    folder = empty / "oxford-iiit-pet"
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    lines = []
    for k, species in enumerate([1, 2, 2]):
        Image.new("RGB", (60, 40 + k), (0, 90 * k, 0)).save(folder / "images" / f"pet_{k}.jpg")
        lines.append(f"pet_{k} {k + 1} {species} 1")
    (folder / "annotations" / "trainval.txt").write_text("\n".join(lines))
    (folder / "annotations" / "test.txt").write_text(lines[1])
    return folder


@pytest.fixture
def cifar(empty):
    for k, name in enumerate(["airplane", "cat", "dog"] * 2):
        for split in ("train", "test"):
            folder = empty / "cifar10" / split / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (40 * k, 0, 0)).save(folder / f"{k}.png")


def test_the_pair_of_shapes_has_two_labels_and_its_masks():
    pair, ten = data.load("shapes10_pair", "test"), data.load("shapes10", "test")
    assert pair.classes == pairs.PAIR
    assert pair.class_counts() == dict.fromkeys(pairs.PAIR, 250)
    first = int(torch.nonzero(ten.labels == ten.classes.index(pairs.PAIR[1]))[0])
    at = int(torch.nonzero(pair.labels == 1)[0])
    assert torch.equal(pair.images[at], ten.images[first])
    assert torch.equal(pair.masks[at], ten.masks[first])


def test_without_anything_two_shapes_stand_in(empty, monkeypatch, capsys):
    monkeypatch.setenv("XTL_PROFILE", "smoke")
    for split in ("train", "test"):
        assert data.load("cats_vs_dogs", split).source.startswith("Shapes-10")
    assert capsys.readouterr().out.count("neither in data/ nor can they be downloaded") == 1


def test_cifar_has_cats_and_dogs(cifar, monkeypatch):
    monkeypatch.setenv("XTL_PROFILE", "smoke")
    pair = data.load("cats_vs_dogs", "train")
    assert pair.source == "CIFAR-10 (image folder), cats and dogs"
    assert pair.classes == ("cat", "dog") and pair.labels.tolist() == [0, 1, 0, 1]
    assert pair.images[:, 0, 0, 0].tolist() == [40, 80, 160, 200]


def test_the_pets_come_first(cifar, pets):
    pair = data.load("cats_vs_dogs", "train")
    assert pair.source.startswith("Oxford-IIIT Pet") and pair.labels.tolist() == [0, 1, 1]
    assert pair.images.shape == (3, 3, 256, 256)
    assert [round(int(v) / 90) for v in pair.images[:, 1, 128, 128]] == [0, 1, 2]
    assert data.load("cats_vs_dogs", "test").labels.tolist() == [1]
