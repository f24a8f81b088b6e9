"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): an image folder, torchvision's copy, or its download."""

from __future__ import annotations

import torch

from .. import env
from .folders import FolderSet, open_folder
from .network import impatient, reachable
from .sets import ImageSet

PAPER_POOL = 5000  # the first CIFAR-10 training images: the paper's subset; never pretrained on
NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def _from_folder(name: str, split: str) -> FolderSet | None:
    folder = env.DATA / name
    if not (folder / split).is_dir():
        return None
    jpeg = next((folder / split).glob("*/*.jpg"), None) is not None
    kind = "JPEG copy" if jpeg else "image folder"
    return open_folder(folder, f"{NAMES[name]} ({kind})")[split]


def _from_torchvision(name: str, split: str, download: bool) -> ImageSet | None:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    if download and not reachable(kind.url):
        return None
    try:
        with impatient():
            copy = kind(env.DATA, train=split == "train", download=download)
    except RuntimeError:  # torchvision's word for "not there or not whole"
        return None
    except OSError as error:
        print(f"The {NAMES[name]} download failed: {error}")
        return None
    images = torch.from_numpy(copy.data).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(copy.targets)
    return ImageSet(images, labels, tuple(copy.classes), f"{NAMES[name]} (torchvision)")


def cifar(name: str, split: str, download: bool = True) -> ImageSet | FolderSet | None:
    """A split of "cifar10" or "cifar100", or None if it cannot be had."""
    local = _from_folder(name, split) or _from_torchvision(name, split, download=False)
    return local or (_from_torchvision(name, split, download=True) if download else None)


def required(name: str, split: str) -> ImageSet | FolderSet:
    """The same, or FileNotFoundError with what to do."""
    image_set = cifar(name, split)
    if image_set is None:
        raise FileNotFoundError(
            f"{NAMES[name]} is neither in data/ nor can it be downloaded: connect to the internet "
            f"once, put it in data/{name}/{{train,test}}/<class>/, or use the source shapes10."
        )
    return image_set
