"""Real photographs and a real ImageNet network, without a download: what the explorer begins with."""

from __future__ import annotations

from dataclasses import replace

import torch

from .. import data, models
from .views import OWN_SIDE, Exhibit

IMAGENET = {  # of the photographs' classes, those that ImageNet names otherwise
    "cat": "tabby",
    "rocket": "missile",
    "motor scooter": "moped",
}
TITLE = "EfficientNet"


def imagenet_exhibit() -> Exhibit:
    """Four photographs of scikit-image and the network that explains them, 1,000 classes.

    Raises ModuleNotFoundError, with the command that installs it, if its weights are missing.
    """
    shown, classes = data.photographs(OWN_SIDE), models.imagenet_classes()
    labels = torch.tensor([classes.index(IMAGENET.get(name, name)) for name in shown.classes])
    return Exhibit({TITLE: models.imagenet()}, replace(shown, labels=labels, classes=classes))
