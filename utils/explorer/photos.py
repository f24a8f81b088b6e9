"""Real photographs and a real ImageNet network, without a download: what the explorer begins with."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from .. import models
from ..data import ImageSet, read_image
from .state import OWN_SIDE, Exhibit

PHOTOGRAPHS = {  # of scikit-image, and the ImageNet class that fits each
    "chelsea.png": "tabby",
    "coffee.png": "espresso",
    "rocket.jpg": "missile",
    "motorcycle_left.png": "moped",
}
TITLE = "EfficientNet"


def photographs() -> Exhibit:
    """Four photographs of scikit-image and the network that explains them, 1,000 classes.

    Raises ModuleNotFoundError, with the command that installs it, if a package is missing.
    """
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "The photographs come with scikit-image: run `pip install scikit-image`."
        )
    folder, classes = Path(spec.origin).parent / "data", models.imagenet_classes()
    images = torch.stack([read_image(folder / name, OWN_SIDE) for name in PHOTOGRAPHS])
    labels = torch.tensor([classes.index(name) for name in PHOTOGRAPHS.values()])
    return Exhibit(
        {TITLE: models.imagenet()}, ImageSet(images, labels, classes, "photographs of scikit-image")
    )
