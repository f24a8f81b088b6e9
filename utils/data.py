"""Image sets: where they come from, how they are split, and how they become model input."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm.auto import tqdm

from . import shapes
from .env import DATA, Profile, impatient, profile, reachable
from .pixels import CORRUPTIONS, augment, blur, corrupt, preprocess, read_image

__all__ = [
    "CORRUPTIONS", "ImageSet", "Splits", "augment", "blur", "corrupt", "load", "preprocess", "read_image", "splits",
]  # fmt: skip

SOURCES = ("auto", "cifar10", "shapes10", "cats_vs_dogs", "shapes10_pair", "digits", "folder:PATH")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
PAPER_POOL = 5000  # the first CIFAR-10 training images: the paper's subset; never pretrained on


@dataclass(frozen=True)
class ImageSet:
    """Images with labels. `masks` says which pixels are the object, where that is known."""

    images: torch.Tensor  # uint8 (N, 3, H, W)
    labels: torch.Tensor  # int64 (N,)
    classes: tuple[str, ...]
    source: str
    masks: torch.Tensor | None = None  # bool (N, H, W)

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"{self.source}: {len(self.images)} images but {len(self.labels)} labels; give each image one label."
            )
        if len(self.classes) < 2:
            raise ValueError(
                f"{self.source} holds one class ({', '.join(self.classes)}); a classifier needs two folders or more."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: torch.Tensor | np.ndarray | list[int]) -> ImageSet:
        """The images at `indices` (N',), in that order."""
        index = torch.as_tensor(np.asarray(indices), dtype=torch.int64)
        masks = None if self.masks is None else self.masks[index]
        return replace(self, images=self.images[index], labels=self.labels[index], masks=masks)

    def class_counts(self) -> dict[str, int]:
        """Number of images of each class."""
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))


@dataclass(frozen=True)
class Splits:
    """Three disjoint image sets and where they lie in their source (`indices`, for proof)."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    indices: dict[str, np.ndarray]


# ---------------------------------------------------------------- reading images


def decoded(files: list[Path], source: str, size: int | None = None) -> torch.Tensor:
    """Images of equal size, uint8 (N, 3, size, size): decoded once, then memory-mapped from data/cache.

    size: by default that of the first image if it is small (CIFAR-like), else 256.
    """
    known = (f"{p.parent.name}/{p.name}:{s.st_size}:{s.st_mtime_ns}" for p in files for s in [p.stat()])
    state = "|".join([str(files[0].parent.parent.resolve()), *known])
    cache = DATA / "cache" / f"{hashlib.sha256(state.encode()).hexdigest()[:16]}.npy"
    if not cache.exists():
        _, height, width = read_image(files[0]).shape
        size = size or (width if max(height, width) <= 64 else 256)
        stack = np.empty((len(files), 3, size, size), np.uint8)
        for i, file in enumerate(tqdm(files, desc=f"reading {source}", unit="img")):
            stack[i] = read_image(file, size).numpy()
        cache.parent.mkdir(parents=True, exist_ok=True)
        part = cache.with_suffix(f".{os.getpid()}.npy")  # several processes may read at once
        np.save(part, stack)
        part.replace(cache)
    # copy-on-write: pages come from the file as they are needed, and torch may hold the array
    return torch.from_numpy(np.load(cache, mmap_mode="c"))


def _read_folder(folder: Path, source: str) -> ImageSet:
    """folder/<class>/<image>; decoded once, then memory-mapped from data/cache."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}: give folder:PATH with one sub-folder of images per class."
        )
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(classes) < 2:
        raise ValueError(
            f"{source} holds {len(classes)} class folder{'s'[: len(classes) != 1]} ({', '.join(classes) or 'none'}); "
            "a classifier needs two or more, each with its images."
        )
    files, labels = [], []
    for label, name in enumerate(classes):
        found = [p for p in (folder / name).glob("[!.]*") if p.suffix.lower() in SUFFIXES]
        # numeric names in numeric order, so that index 10 follows 9
        found.sort(key=lambda p: (int(p.stem) if p.stem.isdecimal() else -1, p.name))
        if not found:
            raise ValueError(
                f"The class folder {folder / name} holds no image: add some or remove the folder."
            )
        files += found
        labels += [label] * len(found)
    if all(p.stem.isdecimal() for p in files) and len({int(p.stem) for p in files}) == len(files):
        order = np.argsort([int(p.stem) for p in files])  # the official order of the set
        files, labels = [files[i] for i in order], [labels[i] for i in order]
    images = decoded(files, source)
    return ImageSet(images, torch.tensor(labels), classes, source)


# ---------------------------------------------------------------- sources


def _cifar_folder(split: str) -> ImageSet | None:
    folder = DATA / "cifar10" / split
    if not folder.is_dir():
        return None
    jpeg = next(folder.glob("*/*.jpg"), None) is not None
    return _read_folder(folder, "CIFAR-10 (JPEG copy)" if jpeg else "CIFAR-10 (image folder)")


def _cifar_torchvision(split: str, download: bool) -> ImageSet | None:
    from torchvision.datasets import CIFAR10

    if download and not reachable(CIFAR10.url):
        return None
    try:
        with impatient():
            found = CIFAR10(DATA, train=split == "train", download=download)
    except RuntimeError:  # torchvision's word for "not there or not whole"
        return None
    except OSError as error:
        print(f"The CIFAR-10 download failed: {error}")
        return None
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet(images, torch.tensor(found.targets), tuple(found.classes), "CIFAR-10 (torchvision)")


def _cifar10(split: str, download: bool = True) -> ImageSet | None:
    found = _cifar_folder(split) or _cifar_torchvision(split, download=False)
    return found or (_cifar_torchvision(split, download=True) if download else None)


@cache
def _shapes10(split: str) -> ImageSet:
    n, seed = {"train": (PAPER_POOL, 10), "test": (2500, 11)}[split]
    labels = shapes.balanced_labels(n, seed)
    images, masks = shapes.draw(labels, seed=seed)
    return ImageSet(images, labels, shapes.CLASSES, "Shapes-10", masks)


def _digits(split: str) -> ImageSet:
    scans, labels = load_digits(return_X_y=True)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    keep = train if split == "train" else test
    grey = torch.from_numpy(scans[keep] * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)
    images = grey.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1).contiguous()
    return ImageSet(images, torch.from_numpy(labels[keep]).long(), tuple("0123456789"), "scikit-learn digits")


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
        found = _cifar10(split)
        if found is None and source == "cifar10":
            raise FileNotFoundError(
                "CIFAR-10 is neither in data/ nor can it be downloaded: connect to the internet once, "
                "put it in data/cifar10/{train,test}/<class>/, or use the source shapes10."
            )
        if found is None:
            print("CIFAR-10 is not in data/ and cannot be downloaded: using the built-in Shapes-10 instead.")
        return found or _shapes10(split)
    if source == "shapes10":
        return _shapes10(split)
    if source == "digits":
        return _digits(split)
    if source in ("cats_vs_dogs", "shapes10_pair"):
        from . import cats_dogs

        return cats_dogs.load_pair(split) if source == "cats_vs_dogs" else cats_dogs.shapes_pair(split)
    if source.startswith("folder:"):
        folder = Path(source.removeprefix("folder:")).expanduser()
        if (folder / "train").is_dir():
            return _read_folder(folder / split, source)
        whole = _read_folder(folder, source)
        test, train = _draw(whole.labels.numpy(), (round(len(whole) / 5), len(whole)), 0, True)
        return whole.subset(np.sort(test if split == "test" else train))
    raise ValueError(f"There is no data source {source!r}: use {', '.join(SOURCES)}.")


# ---------------------------------------------------------------- splits


def _draw(labels: np.ndarray, sizes: tuple[int, ...], seed: int, stratify: bool) -> list[np.ndarray]:
    """Disjoint random index sets of the given sizes; stratified: with the class shares of `labels`.

    Sorted by the place that each image has within its class (0..1), any stretch of the random
    order holds every class in proportion, to one image, however small a class or a set is.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    if stratify:
        place = np.empty(len(labels))
        for label in np.unique(labels):
            members = order[labels[order] == label]
            place[members] = (np.arange(len(members)) + 0.5) / len(members)
        order = order[np.argsort(place[order], kind="stable")]
    return np.split(order, np.cumsum(sizes))[: len(sizes)]


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
    train_at, val_at = _draw(labels, (n_train, n_val), chosen.seed, stratify)
    (test_at,) = _draw(test.labels.numpy(), (chosen.n_test,), chosen.seed, stratify)
    return Splits(
        pool.subset(train_at), pool.subset(val_at), test.subset(test_at),
        {"train": train_at, "val": val_at, "test": test_at},
    )  # fmt: skip
