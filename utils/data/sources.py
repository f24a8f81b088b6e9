"""Where images come from: every source by its name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .. import env
from ..env import Profile
from .builtin import digits, shapes10
from .cifar import PAPER_POOL, cifar, required
from .folders import FolderSet, note, open_folder
from .layout import plural, survey
from .pairs import load_pair, shapes_pair
from .sets import ImageSet, Splits, draw_rows


def _auto(split: str) -> ImageSet | FolderSet:
    """CIFAR-10 where it can be had, else Shapes-10, which is printed."""
    image_set = cifar("cifar10", split)
    if image_set is None:
        note(
            "CIFAR-10 is not in data/ and cannot be downloaded: "
            "using the built-in Shapes-10 instead."
        )
    return image_set or shapes10(split)


READERS: dict[str, Callable[[str], ImageSet | FolderSet]] = {
    "auto": _auto,
    "cifar10": lambda split: required("cifar10", split),
    "cifar100": lambda split: required("cifar100", split),
    "shapes10": shapes10,
    "cats_vs_dogs": load_pair,
    "shapes10_pair": shapes_pair,
    "digits": digits,
}
SOURCES = (*READERS, "folder:PATH")


def _folder(source: str) -> Path:
    """The path in folder:PATH; quotes and ~ are understood."""
    path = source.removeprefix("folder:").strip().strip("\"'")
    if not path:
        raise ValueError("folder: names no folder: give folder:PATH, such as folder:~/my_images.")
    return Path(path).expanduser()


def _open(source: str, split: str) -> ImageSet | FolderSet:
    if split not in ("train", "test"):
        raise ValueError(f"There is no split {split!r}: use train or test.")
    if source.startswith("folder:"):
        return open_folder(_folder(source), source)[split]
    if source not in READERS:
        raise ValueError(f"There is no data source {source!r}: use {', '.join(SOURCES)}.")
    image_set = READERS[source](split)
    if source in ("auto", "cifar10"):
        env.FOUND[source] = image_set.source  # results of different data lie in different folders
    return image_set


def _open_both(source: str) -> tuple[ImageSet | FolderSet, ImageSet | FolderSet]:
    """The training pool and the test split; a folder is gone through once."""
    pool = _open(source, "train")
    test = pool.test if isinstance(pool, FolderSet) else None
    return pool, test or _open(source, "test")


def load(source: str = "auto", split: str = "train") -> ImageSet:
    """A whole split of an image set.

    source: "auto" (CIFAR-10 as an image folder in data/cifar10, else torchvision's copy, else its
    download, else Shapes-10, which is printed), one of READERS, or "folder:PATH" (see
    `open_folder`). split: "train" or "test". Raises ValueError for an unknown source or split and
    for a folder that cannot be used, FileNotFoundError if the source cannot be had.
    """
    image_set = _open(source, split)
    return image_set.whole() if isinstance(image_set, FolderSet) else image_set


def files_hash(source: str) -> str:
    """A hash of what a source's files are (path, size, time); "" for sources other than a folder.

    Whatever is kept of a folder's results is out of date when this changes.
    """
    if not source.startswith("folder:"):
        return ""
    layout = survey(_folder(source), source)
    files = [f for by_class in layout.files.values() for fs in by_class.values() for f in fs]
    states = [f"{f}:{s.st_size}:{s.st_mtime_ns}" for f in sorted(files) for s in [os.stat(f)]]
    return hashlib.sha256("|".join(states).encode()).hexdigest()[:16]


def _shares(n_pool: int, n_classes: int, profile: Profile) -> tuple[int, int]:
    """How many of n_pool images train and validate: the profile's numbers or its proportions.

    In a small set one image of each class should validate, but never more than a quarter do.
    """
    n_train, n_val = profile.n_train, profile.n_val
    if n_train + n_val <= n_pool:
        return n_train, n_val
    share = round(n_pool * n_val / (n_train + n_val))
    n_val = min(max(n_classes, share), max(1, n_pool // 4))
    return n_pool - n_val, n_val


def _draw_parts(
    pool: ImageSet | FolderSet, n_pool: int, profile: Profile, stratify: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the pool to train with and to validate with."""
    labels, own = pool.labels[:n_pool].numpy(), getattr(pool, "val_from", None)
    if own is not None and 0 < own < n_pool:
        (train,) = draw_rows(labels[:own], (profile.n_train,), profile.seed, stratify)
        (val,) = draw_rows(labels[own:], (profile.n_val,), profile.seed, stratify)
        return train, val + own
    sizes = _shares(n_pool, len(pool.classes), profile)
    train, val = draw_rows(labels, sizes, profile.seed, stratify)
    return train, val


def splits(profile: Profile | None = None, stratify: bool = True) -> Splits:
    """The profile's train, validation and test sets: seeded, disjoint, stratified by default.

    Up to `paper`, train and validation come from CIFAR-10's first 5,000 training images: the
    course weights have never seen those. A set smaller than the profile asks for is shared out in
    the profile's proportions, which is printed; a folder with validation images of its own keeps
    them. Of a folder only the images that are drawn are decoded. Raises ValueError if a part
    would be empty.
    """
    profile = profile or env.profile()
    pool, test = _open_both(profile.source)
    if pool.classes != test.classes:
        odd = ", ".join(sorted(set(pool.classes) ^ set(test.classes))[:3])
        raise ValueError(
            f"{pool.source} (train) and {test.source} (test) differ in their classes ({odd}): "
            "give both splits the same class folders."
        )
    aside = pool.source.startswith("CIFAR-10 ") and profile.name != "full"
    n_pool = min(len(pool), PAPER_POOL) if aside else len(pool)  # others may lie sorted by class
    if n_pool < 2 or not len(test):
        raise ValueError(
            f"{pool.source} has {plural(n_pool, 'training image')} and {len(test)} to test with: "
            "training, validation and test need one at least each, better ten of each class."
        )
    train_at, val_at = _draw_parts(pool, n_pool, profile, stratify)
    (test_at,) = draw_rows(test.labels.numpy(), (profile.n_test,), profile.seed, stratify)
    _say_sizes(pool, train_at, val_at, test_at, profile)
    return Splits(
        pool.subset(train_at),
        pool.subset(val_at),
        test.subset(test_at),
        {"train": train_at, "val": val_at, "test": test_at},
    )


def _say_sizes(
    pool: ImageSet | FolderSet,
    train: np.ndarray,
    val: np.ndarray,
    test: np.ndarray,
    profile: Profile,
) -> None:
    """Print where the parts are smaller than the profile's or lack a class."""
    wanted = (profile.n_train, profile.n_val, profile.n_test)
    if any(len(rows) < n for rows, n in zip((train, val, test), wanted, strict=True)):
        note(
            f"{pool.source} has fewer images than the profile {profile.name} asks for: "
            f"using {len(train)} to train, {len(val)} to validate and {len(test)} to test."
        )
    missing = len(pool.classes) - len(np.unique(pool.labels.numpy()[train]))
    if missing:
        note(
            f"{pool.source}: the {plural(len(train), 'training image')} of the profile "
            f"{profile.name} leave out {missing} of {len(pool.classes)} classes; "
            "choose a larger profile or give more images of each."
        )
