"""Where images come from: every source by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..env import Profile, profile
from . import pairs
from .builtin import digits, shapes10
from .cifar import PAPER_POOL, cifar10
from .folders import read_folder
from .sets import ImageSet, Splits, draw

SOURCES = ("auto", "cifar10", "shapes10", "cats_vs_dogs", "shapes10_pair", "digits", "folder:PATH")


def load(source: str = "auto", split: str = "train") -> ImageSet:
    """A whole split of an image set.

    source: "auto" (CIFAR-10 as an image folder in data/cifar10, else torchvision's copy, else
    its download, else Shapes-10, said aloud), "cifar10", "shapes10", "digits", "cats_vs_dogs" and
    "shapes10_pair" (two classes; see cats_dogs), or "folder:PATH"
    (PATH/{train,test}/<class>/<image>, or PATH/<class>/<image>, of which a fifth of each class
    is the test split). split: "train" or "test". Raises ValueError for an unknown source or
    split, FileNotFoundError if the source cannot be had.
    """
    if split not in ("train", "test"):
        raise ValueError(f"There is no split {split!r}: use train or test.")
    if source in ("auto", "cifar10"):
        found = cifar10(split)
        if found is None and source == "cifar10":
            raise FileNotFoundError(
                "CIFAR-10 is neither in data/ nor can it be downloaded: connect to the internet once, "
                "put it in data/cifar10/{train,test}/<class>/, or use the source shapes10."
            )
        if found is None:
            print(
                "CIFAR-10 is not in data/ and cannot be downloaded: using the built-in Shapes-10 instead."
            )
        return found or shapes10(split)
    if source == "shapes10":
        return shapes10(split)
    if source == "digits":
        return digits(split)
    if source == "cats_vs_dogs":
        return pairs.load_pair(split)
    if source == "shapes10_pair":
        return pairs.shapes_pair(split)
    if source.startswith("folder:"):
        folder = Path(source.removeprefix("folder:")).expanduser()
        if (folder / "train").is_dir():
            return read_folder(folder / split, source)
        whole = read_folder(folder, source)
        test, train = draw(whole.labels.numpy(), (round(len(whole) / 5), len(whole)), 0, True)
        return whole.subset(np.sort(test if split == "test" else train))
    raise ValueError(f"There is no data source {source!r}: use {', '.join(SOURCES)}.")


def splits(chosen: Profile | None = None, stratify: bool = True) -> Splits:
    """The profile's train, validation and test sets: seeded, disjoint, stratified by default.

    Up to `paper`, train and validation come from CIFAR-10's first 5,000 training images: the
    course weights have never seen those. A set smaller than the profile asks for is shared out in
    the profile's proportions, and that is said.
    """
    chosen = chosen or profile()
    pool, test = load(chosen.source, "train"), load(chosen.source, "test")
    if pool.classes != test.classes:
        odd = ", ".join(sorted(set(pool.classes) ^ set(test.classes))[:3])
        raise ValueError(
            f"{pool.source} (train) and {test.source} (test) differ in their classes ({odd}): "
            "give both splits the same class folders."
        )
    aside = pool.source.startswith("CIFAR-10") and chosen.name != "full"
    n_pool = min(len(pool), PAPER_POOL) if aside else len(pool)  # others may lie sorted by class
    n_train, n_val = chosen.n_train, chosen.n_val
    if n_train + n_val > n_pool:
        n_val = max(len(pool.classes), round(n_pool * n_val / (n_train + n_val)))
        n_train = n_pool - n_val
        print(
            f"{pool.source} has {n_pool} training images: using {n_train} to train and {n_val} to validate."
        )
    labels = pool.labels[:n_pool].numpy()
    train_at, val_at = draw(labels, (n_train, n_val), chosen.seed, stratify)
    (test_at,) = draw(test.labels.numpy(), (chosen.n_test,), chosen.seed, stratify)
    return Splits(
        pool.subset(train_at),
        pool.subset(val_at),
        test.subset(test_at),
        {"train": train_at, "val": val_at, "test": test_at},
    )
