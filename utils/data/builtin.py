"""Sets that need no file: Shapes-10, drawn when asked for, and scikit-learn's digits."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from . import shapes
from .cifar import PAPER_POOL
from .sets import ImageSet


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
