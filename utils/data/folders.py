"""Image folders: which files there are, decoded once, then memory-mapped."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..env import DATA
from .pixels import read_image
from .sets import ImageSet

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


def decoded(files: list[Path], source: str, size: int | None = None) -> torch.Tensor:
    """Images of equal size, uint8 (N, 3, size, size): decoded once, then memory-mapped from data/cache.

    size: by default that of the first image if it is small (CIFAR-like), else 256.
    """
    known = (
        f"{p.parent.name}/{p.name}:{s.st_size}:{s.st_mtime_ns}" for p in files for s in [p.stat()]
    )
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


def read_folder(folder: Path, source: str) -> ImageSet:
    """folder/<class>/<image>; decoded once, then memory-mapped from data/cache."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}: give folder:PATH with one sub-folder of images per class."
        )
    classes = tuple(
        sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
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
