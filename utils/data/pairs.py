"""Two classes: cats and dogs where they can be had, else two shapes."""

from __future__ import annotations

import numpy as np
import torch

from .. import env
from .builtin import shapes10
from .cache import decoded
from .cifar import PAPER_POOL, cifar
from .folders import note
from .network import impatient, reachable
from .sets import ImageSet

PAIR = ("star", "cross")  # of Shapes-10
PETS = "Oxford-IIIT Pet"
PETS_URL = "https://thor.robots.ox.ac.uk/pets/images.tar.gz"


def of_two(image_set: ImageSet, names: tuple[str, str], source: str) -> ImageSet:
    """The images of two classes, labelled 0 and 1 in the order of `names`."""
    first, second = (image_set.classes.index(name) for name in names)
    both = image_set.subset(
        torch.nonzero((image_set.labels == first) | (image_set.labels == second)).flatten()
    )
    labels = (both.labels == second).long()
    return ImageSet(both.images, labels, names, source, both.masks)


def shapes_pair(split: str) -> ImageSet:
    """Two classes of Shapes-10, with masks."""
    return of_two(shapes10(split), PAIR, f"Shapes-10, {PAIR[0]} and {PAIR[1]}")


def _fetch_pets(download: bool) -> bool:
    """Whether torchvision's copy of the pets lies in data/, downloaded if that is wanted."""
    from torchvision.datasets import OxfordIIITPet

    if download and not reachable(PETS_URL):
        return False
    try:
        with impatient():
            OxfordIIITPet(env.DATA, "trainval", "binary-category", download=download)
    except RuntimeError:  # torchvision's word for "not there or not whole"
        return False
    except OSError as error:
        print(f"The {PETS} download failed: {error}")
        return False
    return True


def _pets(split: str, download: bool) -> ImageSet | None:
    """Oxford-IIIT Pet (Parkhi et al. 2012), 37 breeds as cat or dog, middle squares of 256 pixels.

    The annotation files say for each image: name, breed, 1 for a cat or 2 for a dog, breed again.
    """
    if not _fetch_pets(download):
        return None
    folder = env.DATA / "oxford-iiit-pet"
    listing = folder / "annotations" / ("trainval.txt" if split == "train" else "test.txt")
    lines = [line.split() for line in listing.read_text().splitlines()]
    files = [folder / "images" / f"{name}.jpg" for name, *_ in lines]
    labels = torch.tensor([int(kind) - 1 for _, _, kind, *_ in lines])
    return ImageSet(decoded(files, PETS, 256), labels, ("cat", "dog"), f"{PETS}, cats and dogs")


def _cifar(split: str) -> ImageSet | None:
    """CIFAR-10's cats and dogs; of the training images only those that no course weights have seen."""
    whole = cifar("cifar10", split, download=False)
    if whole is None:
        return None
    count = min(len(whole), PAPER_POOL) if split == "train" else len(whole)
    return of_two(whole.subset(np.arange(count)), ("cat", "dog"), f"{whole.source}, cats and dogs")


def load_pair(split: str) -> ImageSet:
    """Oxford-IIIT Pet from data/ (or downloaded, in paper and full), CIFAR-10's pair from data/,
    else two shapes, which is printed.

    The small profiles look at 32 pixels: CIFAR-10 in data/ is enough for them, and 800 MB are not
    downloaded if it is there.
    """
    large = env.profile().name in ("paper", "full")
    pair = (
        _pets(split, download=False)
        or (_pets(split, download=True) if large else None)
        or _cifar(split)
        or (None if large else _pets(split, download=True))
    )
    if pair is None:
        note(
            "Cats and dogs are neither in data/ nor can they be downloaded: "
            "using a pair of Shapes-10 instead."
        )
    return pair or shapes_pair(split)
