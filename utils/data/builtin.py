"""Images that need no download: Shapes-10, scikit-learn's digits, photographs of the libraries."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import skimage
import sklearn
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from . import shapes
from .cifar import PAPER_POOL
from .pixels import read_image
from .sets import ImageSet

FILES = {  # what it shows: its file in scikit-image
    "cat": "chelsea.png",
    "espresso": "coffee.png",
    "rocket": "rocket.jpg",
    "motor scooter": "motorcycle_left.png",
}


@cache
def shapes10(split: str) -> ImageSet:
    n, seed = {"train": (PAPER_POOL, 10), "test": (2500, 11)}[split]
    labels = shapes.balanced_labels(n, seed)
    images, masks = shapes.draw(labels, seed=seed)
    return ImageSet(images, labels, shapes.CLASSES, "Shapes-10", masks)


def digits(split: str) -> ImageSet:
    scans, labels = load_digits(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    keep = train if split == "train" else test
    grey = torch.from_numpy(scans[keep] * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)
    images = grey.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1).contiguous()
    return ImageSet(
        images, torch.from_numpy(labels[keep]).long(), tuple("0123456789"), "scikit-learn digits"
    )


def photographs(size: int = 224) -> ImageSet:
    """Four photographs of ImageNet classes, uint8 (4, 3, size, size), cut to their middle square."""
    folder = Path(skimage.__file__).parent / "data"
    images = torch.stack([read_image(folder / name, size) for name in FILES.values()])
    return ImageSet(images, torch.arange(len(FILES)), tuple(FILES), "scikit-image's photographs")


def at_hand(size: int = 224) -> torch.Tensor:
    """Twelve photographs of many kinds, without labels: uint8 (12, 3, size, size).

    From scikit-image, scikit-learn and matplotlib; each is cut to its middle square.
    """
    more = ("astronaut.png", "camera.png", "coins.png", "clock_motion.png", "page.png")
    files = [Path(skimage.__file__).parent / "data" / name for name in (*FILES.values(), *more)]
    files += [
        Path(sklearn.__file__).parent / f"datasets/images/{n}.jpg" for n in ("china", "flower")
    ]
    files.append(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    return torch.stack([read_image(file, size) for file in files])
