"""Where the parts of a classifier are: its kind, its head, and the layers that Grad-CAM can read.

A default is only given where the architecture is known. Elsewhere a sentence names candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torchvision.models as tv
from timm.models.hrnet import HighResolutionNet
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.squeezenet import Fire

from .unwrap import inner

Names = Callable[[nn.Module], list[str]]
UNORDERED = ("Hiera",)  # their patch tokens do not lie in the picture's order


def kind(model: nn.Module) -> str:
    """ "vit" for timm Vision Transformers, "cnn" for every other network.

    Raises ValueError for a module without a convolution that models.wrap has not seen.
    """
    if isinstance(model, VisionTransformer):
        return "vit"
    if hasattr(model, "input_size") or any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return "cnn"
    raise ValueError(
        f"{type(model).__name__} is neither a timm Vision Transformer nor a CNN: "
        "if it takes images, wrap it with models.wrap."
    )


# ---------------------------------------------------------------- layers for Grad-CAM


def _numbered(*chains: str) -> Names:
    """All members of these chains of layers: ("features",) -> features.0, features.1, ..."""

    def names(model: nn.Module) -> list[str]:
        return [
            f"{chain}.{name}"
            for chain in chains
            for name, _ in model.get_submodule(chain).named_children()
        ]

    return names


def _of_type(chain: str, *types: type[nn.Module]) -> Names:
    def names(model: nn.Module) -> list[str]:
        members = model.get_submodule(chain).named_children()
        return [f"{chain}.{name}" for name, member in members if isinstance(member, types)]

    return names


def _starting(*starts: str, chain: str = "") -> Names:
    """Members whose names start like this."""
    before = f"{chain}." if chain else ""

    def names(model: nn.Module) -> list[str]:
        members = model.get_submodule(chain).named_children()
        return [before + name for name, _ in members if name.startswith(starts)]

    return names


_STAGES = _numbered("layer1", "layer2", "layer3", "layer4")
FAMILIES: tuple[tuple[type[nn.Module], Names], ...] = (
    (ResNet, _STAGES),  # timm's
    (HighResolutionNet, lambda model: ["final_layer"]),
    (tv.ResNet, _STAGES),
    (tv.AlexNet, _of_type("features", nn.ReLU)),
    (tv.VGG, _of_type("features", nn.ReLU)),
    (tv.SqueezeNet, _of_type("features", Fire)),
    # not norm5, its last layer: what follows is a ReLU in place, which on a CPU also overwrites
    # the activations that a hook has kept, so pytorch-grad-cam reads them after the ReLU there
    (tv.DenseNet, _starting("denseblock", chain="features")),
    (tv.MNASNet, _numbered("layers")),
    (tv.GoogLeNet, _starting("inception")),
    (tv.Inception3, _starting("Mixed")),
    (tv.ShuffleNetV2, _starting("stage", "conv5")),
    (tv.RegNet, _numbered("trunk_output")),
    (tv.MaxVit, _numbered("blocks")),
    (tv.MobileNetV2, _numbered("features")),
    (tv.MobileNetV3, _numbered("features")),
    (tv.EfficientNet, _numbered("features")),
    (tv.ConvNeXt, _numbered("features")),
    (tv.SwinTransformer, _numbered("features")),
    (
        tv.VisionTransformer,
        lambda m: [f"encoder.layers.{n}.ln_1" for n, _ in m.encoder.layers.named_children()],
    ),
)


def _of_blocks(model: nn.Module) -> list[str]:
    """Token networks (ViT and its kin): norm1 of each block.

    Later parts of the last block give the patches no gradient where the head reads a class token.
    A block without a norm1 is read at its input: the output of the block before it.
    """
    blocks = list(model.blocks)
    if all(hasattr(block, "norm1") for block in blocks):
        return [f"blocks.{i}.norm1" for i in range(len(blocks))]
    return [f"blocks.{i}" for i in range(len(blocks) - 1)]


def _token_blocks(model: nn.Module) -> bool:
    """Does a timm network consist of one chain of blocks over tokens?"""
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
        return False
    stem = next((n for n in ("stem", "patch_embed", "embeds") if hasattr(model, n)), None)
    linear = any(isinstance(m, nn.Linear) for m in blocks[0].modules())
    return bool(linear and stem and type(model).__module__.startswith("timm."))


def layers(model: nn.Module) -> list[str]:
    """Layers that Grad-CAM is known to read well, in order from the input; the last is its default.

    timm's and torchvision's families, Hugging Face's ViT, ResNet and ConvNeXt, the layer given to
    models.wrap. Any other layer with feature maps or patch tokens can be named in explain();
    raises ValueError, with candidates, where none is known.
    """
    layer = getattr(model, "gradcam_layer", None)
    if layer is not None:
        return [layer]
    model = inner(model)
    if type(model).__name__ in UNORDERED:
        raise ValueError(
            f"{type(model).__name__} keeps its patches in another order than the picture's, so "
            "Grad-CAM has no layer to read: use saliency, integrated_gradients or occlusion."
        )
    for family, names in FAMILIES:
        if isinstance(model, family):
            return names(model)
    if _token_blocks(model):
        return _of_blocks(model)
    known = [stage["module"] for stage in getattr(model, "feature_info", None) or ()]
    known = [name for name in known if exists(model, name)]
    if known and type(model).__module__.startswith("timm."):
        return known
    known = _hugging_face(model)
    if known:
        return known
    raise ValueError(
        f"The layer that Grad-CAM should read is not known for {type(model).__name__}: "
        f"give layer=, such as {' or '.join(map(repr, candidates(model))) or 'a layer with feature maps'}."
    )


def _hugging_face(model: nn.Module) -> list[str]:
    """Hugging Face's image classifiers by the name of their class."""
    name, names = type(model).__name__, [n for n, _ in model.named_modules()]
    if name in ("ViTForImageClassification", "DeiTForImageClassification"):
        return [n for n in names if n.endswith("layernorm_before")]
    if name in ("ResNetForImageClassification", "ConvNextForImageClassification"):
        return [n for n in names if ".encoder.stages." in n and n.split(".")[-2] == "stages"]
    return []


def exists(model: nn.Module, name: str) -> bool:
    """Is there a layer of this name?"""
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return bool(name)


def candidates(model: nn.Module, most: int = 4) -> list[str]:
    """Layers that may hold the last feature maps: the last convolutions and the parts they lie in.

    Of a network with one convolution, which cuts the image into patches, the last norms.
    """
    model = inner(model)
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and n]
    if len(convolutions) < 2 and any(isinstance(m, nn.LayerNorm) for m in model.modules()):
        return [n for n, m in model.named_modules() if isinstance(m, nn.LayerNorm) and n][-most:]
    if not convolutions:
        return []
    parts = convolutions[-1].split(".")
    around = [".".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    return list(dict.fromkeys([*around, *reversed(convolutions)]))[:most]


# ---------------------------------------------------------------- heads

HEADS = (
    "head",
    "fc",
    "classifier",
    "heads",
    "last_linear",
    "linear",
    "output",
    "out",
)  # usual names
Head: TypeAlias = nn.Linear | nn.Conv2d


def _last_layer(part: nn.Module) -> Head | None:
    """The last linear layer or 1x1 convolution of a head, in order of its definition."""
    layers = [m for m in part.modules() if type(m) is not nn.Identity and isinstance(m, Head)]
    return layers[-1] if layers else None


def heads(model: nn.Module) -> tuple[Head, ...]:
    """The layers that turn features into logits: one, or two in a distilled network.

    Linear layers or 1x1 convolutions, also at the end of a Sequential, under timm's,
    torchvision's and Hugging Face's names. Raises ValueError where there is none.
    """
    model = inner(model)
    if hasattr(model, "get_classifier"):
        parts = model.get_classifier()
        parts = parts if isinstance(parts, tuple | list) else (parts,)
    else:
        parts = next(
            ((getattr(model, n),) for n in HEADS if isinstance(getattr(model, n, None), nn.Module)),
            tuple(model[-1:]) if isinstance(model, nn.Sequential) else (),
        )
    heads = tuple(_last_layer(part) for part in parts if isinstance(part, nn.Module))
    if not heads or any(layer is None for layer in heads):
        raise ValueError(
            f"{type(model).__name__} has no head that could be recognised: "
            f"build it with num_classes above 0, or name its last layer one of {', '.join(HEADS)}."
        )
    return heads


def head(model: nn.Module) -> Head:
    """The last layer; the first of two in a distilled network."""
    return heads(model)[0]


def outputs(model: nn.Module) -> int:
    """How many logits the model gives: its head's, or what models.wrap counted."""
    try:
        return head(model).weight.shape[0]
    except ValueError:
        if isinstance(getattr(model, "outputs", None), int):
            return model.outputs
        raise


def new_head(model: nn.Module) -> None:
    """Xavier-uniform weights and zero bias for the last layer (Glorot & Bengio 2010)."""
    for layer in heads(model):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
