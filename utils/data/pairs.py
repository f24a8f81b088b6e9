"""Two classes: cats and dogs where they can be had, else two shapes."""

from __future__ import annotations

import numpy as np
import torch

from ..env import DATA, profile
from .builtin import shapes10
from .cifar import PAPER_POOL, cifar10
from .folders import decoded
from .network import impatient, reachable
from .sets import ImageSet

PAIR = ("star", "cross")  # of Shapes-10


def of_two(image_set: ImageSet, names: tuple[str, str], source: str) -> ImageSet:
    """The images of two classes, labelled 0 and 1 in the order of `names`."""
    first, second = (image_set.classes.index(name) for name in names)
    chosen = image_set.subset(
        torch.nonzero((image_set.labels == first) | (image_set.labels == second)).flatten()
    )
    labels = (chosen.labels == second).long()
    return ImageSet(chosen.images, labels, names, source, chosen.masks)


def shapes_pair(split: str) -> ImageSet:
    """Two classes of Shapes-10, with masks."""
    return of_two(shapes10(split), PAIR, f"Shapes-10, {PAIR[0]} and {PAIR[1]}")


def _pets(split: str, download: bool) -> ImageSet | None:
    """Oxford-IIIT Pet (Parkhi et al. 2012), 37 breeds as cat or dog, middle squares of 256 pixels."""
    from torchvision.datasets import OxfordIIITPet

    if download and not reachable(f"{OxfordIIITPet._RESOURCES[0][0]}"):
        return None
    try:
        with impatient():
            found = OxfordIIITPet(
                DATA,
                "trainval" if split == "train" else "test",
                "binary-category",
                download=download,
            )
    except RuntimeError:  # torchvision's word for "not there or not whole"
        return None
    except OSError as error:
        print(f"The Oxford-IIIT Pet download failed: {error}")
        return None
    labels = torch.tensor(found._bin_labels)
    images = decoded(list(found._images), "Oxford-IIIT Pet", 256)
    return ImageSet(images, labels, ("cat", "dog"), "Oxford-IIIT Pet, cats and dogs")


def _cifar(split: str) -> ImageSet | None:
    """CIFAR-10's cats and dogs; of the training images only those that no course weights have seen."""
    found = cifar10(split, download=False)
    if found is None:
        return None
    if split == "train":
        found = found.subset(np.arange(min(len(found), PAPER_POOL)))
    return of_two(found, ("cat", "dog"), f"{found.source}, cats and dogs")


def load_pair(split: str) -> ImageSet:
    """Oxford-IIIT Pet from data/ (or downloaded, in paper and full), CIFAR-10's pair from data/, else two shapes, said aloud.

    The small profiles look at 32 pixels: CIFAR-10 in data/ is enough for them, and 800 MB are not
    downloaded if it is there.
    """
    large = profile().name in ("paper", "full")
    found = (
        _pets(split, download=False)
        or (_pets(split, download=True) if large else None)
        or _cifar(split)
        or (None if large else _pets(split, download=True))
    )
    if found is None:
        print(
            "Cats and dogs are neither in data/ nor can they be downloaded: using a pair of Shapes-10 instead."
        )
    return found or shapes_pair(split)
