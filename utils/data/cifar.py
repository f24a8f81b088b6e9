"""CIFAR-10 (Krizhevsky 2009): as an image folder in data/cifar10, torchvision's copy, or its download."""

from __future__ import annotations

import torch

from ..env import DATA
from .folders import read_folder
from .network import impatient, reachable
from .sets import ImageSet

PAPER_POOL = 5000  # the first CIFAR-10 training images: the paper's subset; never pretrained on


def _cifar_folder(split: str) -> ImageSet | None:
    folder = DATA / "cifar10" / split
    if not folder.is_dir():
        return None
    jpeg = next(folder.glob("*/*.jpg"), None) is not None
    return read_folder(folder, "CIFAR-10 (JPEG copy)" if jpeg else "CIFAR-10 (image folder)")


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
    return ImageSet(
        images, torch.tensor(found.targets), tuple(found.classes), "CIFAR-10 (torchvision)"
    )


def cifar10(split: str, download: bool = True) -> ImageSet | None:
    found = _cifar_folder(split) or _cifar_torchvision(split, download=False)
    return found or (_cifar_torchvision(split, download=True) if download else None)
