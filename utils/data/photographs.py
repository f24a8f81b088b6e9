"""Real photographs without a download: those that come with the libraries."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import skimage
import sklearn
import torch

from .pixels import read_image
from .sets import ImageSet

FILES = {  # what it shows: its file in scikit-image
    "cat": "chelsea.png",
    "espresso": "coffee.png",
    "rocket": "rocket.jpg",
    "motor scooter": "motorcycle_left.png",
}


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
