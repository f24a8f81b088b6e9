"""What the tests of training share: networks of a few thousand weights, and a few drawn images.

Plain functions, imported by name: from utils.tests.train.conftest import images, tiny
"""

from __future__ import annotations

from dataclasses import asdict

import pytest
import timm
import torch

from utils import data, train
from utils.data import shapes
from utils.tests.conftest import tiny as network
from utils.train import Recipe, loop

ADAMW = Recipe(2, "adamw", 1e-3, 0.01, batch=8, schedule="onecycle", augment=True)


def tiny(kind: str = "vit", classes: int = 10, seed: int = 0) -> torch.nn.Module:
    """A small ViT (with dropout) or ResNet that fit() takes for one of ours."""
    if kind == "vit":
        return named(network(kind, classes, seed, num_heads=2, drop_rate=0.1).train(), "tiny_vit")
    torch.manual_seed(seed)
    model = timm.create_model("resnet18", channels=(8, 12, 16, 20), num_classes=classes)
    return named(model, f"tiny_{kind}")


def mini(classes: int = 10, patch_size: int = 8) -> torch.nn.Module:
    """A small ViT that stands for vit_mini."""
    model = network(classes=classes, num_heads=2, patch_size=patch_size)
    return named(model.train(), "vit_mini")


def named(model: torch.nn.Module, arch: str, size: int = 32) -> torch.nn.Module:
    """The model with what models.build notes on it."""
    model.arch, model.provenance, model.input_size = arch, "random weights", size
    model.mean = model.std = (0.5, 0.5, 0.5)
    return model


def images(n: int = 40, seed: int = 0) -> data.ImageSet:
    """Drawn shapes, the classes balanced."""
    labels = shapes.balanced_labels(n, seed)
    return data.ImageSet(shapes.draw(labels, seed=seed)[0], labels, shapes.CLASSES, "Shapes-10")


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the state."""
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def curves(history: train.History) -> dict:
    """A history without its run time."""
    return {k: v for k, v in asdict(history).items() if k != "seconds"}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints every third step, on the CPU, so that little training meets all machinery."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 3)
    monkeypatch.setenv("XTL_DEVICE", "cpu")
