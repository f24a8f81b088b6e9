"""Models: which architecture, which head, and where the weights came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..data import impatient, reachable
from ..env import WEIGHTS, profile
from .parts import head, new_head, outputs

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
COURSE = ("resnet34_slim", "vit_mini", "alexnet_slim")  # small enough for a CPU
STUDIES = ("transfer.", "matched.")  # files beside the cards that are none


def _alexnet_slim(num_classes: int) -> nn.Module:
    """AlexNet's layout (Krizhevsky et al. 2012) with a quarter of the channels."""
    from torchvision.models import AlexNet

    model = AlexNet(num_classes)
    widths = iter([(3, 16), (16, 48), (48, 96), (96, 64), (64, 64)])
    for i, layer in enumerate(model.features):
        if isinstance(layer, nn.Conv2d):
            c_in, c_out = next(widths)
            model.features[i] = nn.Conv2d(
                c_in, c_out, layer.kernel_size, layer.stride, layer.padding
            )
    model.classifier = nn.Sequential(
        nn.Dropout(),
        nn.Linear(64 * 36, 256),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(256, 256),
        nn.ReLU(True),
        nn.Linear(256, num_classes),
    )
    return model


def _create(arch: str, num_classes: int, pretrained: bool) -> nn.Module:
    """The bare network, with the head `num_classes` wide."""
    if arch == "resnet34_slim":
        return timm.create_model("resnet34", channels=(16, 32, 64, 128), num_classes=num_classes)
    if arch == "vit_mini":
        return timm.models.VisionTransformer(
            img_size=32, patch_size=4, embed_dim=96, depth=12, num_heads=3, num_classes=num_classes
        )
    if arch == "alexnet_slim":
        return _alexnet_slim(num_classes)
    if arch == "alexnet":
        from torchvision.models import AlexNet_Weights, alexnet

        model = alexnet()
        if pretrained:  # not alexnet(weights=...), which unpickles whatever it gets
            state = AlexNet_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True, weights_only=True)
            model.load_state_dict(state)
        model.classifier[-1] = nn.Linear(4096, num_classes)
        return model
    return timm.create_model(arch, pretrained=pretrained, num_classes=num_classes)


def _check(arch: str, weights: str) -> None:
    """ValueError unless `arch` is one that _create knows and hub weights, if asked for, can exist."""
    name, _, tag = arch.partition(".")
    if arch in COURSE or arch == "alexnet":
        tags = [""] if arch == "alexnet" else []
    elif timm.is_model(name):
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    else:
        close = timm.list_models(f"*{arch.split('.')[0].split('_')[0]}*")[:3]
        raise ValueError(
            f"There is no architecture {arch!r}: use {', '.join(COURSE)}, alexnet or a timm name{' such as ' + ', '.join(close) if close else ''}."
        )
    if (tag and tag not in tags) or (weights == "hub" and not tags):
        raise ValueError(
            f"There are no hub weights {arch!r}: use {', '.join(f'{name}.{t}' for t in tags) or 'the course weights'}."
        )


@contextmanager
def quick_offline(weights: str) -> Iterator[None]:
    """Without a network, keep the hub's client to its cache (it would retry for a minute)."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or (weights == "hub" and not reachable(constants.ENDPOINT))
    try:
        with impatient():
            yield
    finally:
        constants.HF_HUB_OFFLINE = before


def course_variant(arch: str, keep_head: bool = False) -> str:
    """What "course" means: the ImageNet student's weights where there are some, else "cifar10".

    Only weights that were trained on all of CIFAR-10, "cifar10", have a head to keep.
    """
    imagenet = (WEIGHTS / f"{arch}.imagenet.json").exists()
    return "imagenet" if imagenet and not keep_head else "cifar10"


def card(arch: str, variant: str | None = None) -> dict:
    """The JSON card of the course weights of `arch`; FileNotFoundError if there are none.

    variant: "imagenet", "contrast", "mae" (no CIFAR-10 label was seen), "cifar10" (trained on
    45,000 labelled CIFAR-10 images), or the default of course_variant().
    """
    file = WEIGHTS / f"{arch}.{variant or course_variant(arch)}.json"
    if not file.exists():
        cards = [f for f in sorted(WEIGHTS.glob("*.json")) if not f.name.startswith(STUDIES)]
        there = [f"{f.stem.replace('.', ' with course:')}" for f in cards]
        raise FileNotFoundError(
            f"There are no course weights {file.name} in {WEIGHTS.name}/: use weights='none' "
            f"or {', '.join(there) or 'train some'}."
        )
    return json.loads(file.read_text())


def _load_course(model: nn.Module, arch: str, keep_head: bool, variant: str) -> str:
    facts = card(arch, variant)
    file = WEIGHTS / facts["file"]
    if hashlib.sha256(file.read_bytes()).hexdigest() != facts["sha256"]:
        raise ValueError(
            f"{file.name} is not the file its card describes (sha256 differs): check it out again."
        )
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in load_file(file).items()
    }
    if keep_head and variant != "cifar10":
        raise ValueError(
            f"{file.name} was trained without labels and has no head to keep: "
            "build it with keep_head=False, or take the weights course:cifar10."
        )
    if not keep_head:
        own = {id(p): name for name, p in model.named_parameters()}
        new_head(model)
        last = head(model).weight
        grown = state.get(own[id(last)])
        # the same seed may have drawn the head that these weights grew from
        while grown is not None and grown.shape == last.shape and _alike(grown, last):
            new_head(model)
        state |= {own[id(p)]: p for p in head(model).parameters()}
    _fit_exactly(model, state, arch, file.name)
    model.load_state_dict(state)
    return f"course weights {file.name}: {facts['summary']}"


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return abs(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()) > 0.2


def _fit_exactly(model: nn.Module, state: dict[str, torch.Tensor], arch: str, name: str) -> None:
    """ValueError, naming the first difference, unless `state` has the model's very shapes."""
    ours, theirs = ({k: v.shape for k, v in s.items()} for s in (model.state_dict(), state))
    odd = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    if odd:
        raise ValueError(
            f"{name} is a checkpoint of another architecture than {arch} with "
            f"{outputs(model)} classes (first difference: {odd[0]}): give the file that fits."
        )


def load_state(model: nn.Module, file: str | Path, arch: str) -> None:
    """Load a .safetensors checkpoint of this very architecture, head included.

    Raises FileNotFoundError, or ValueError for another kind of file or architecture.
    """
    file = Path(file)
    if file.suffix != ".safetensors":
        raise ValueError(
            f"{file.name} is not a .safetensors file: weights are loaded from that format only, because a pickle can run code."
        )
    if not file.exists():
        raise FileNotFoundError(
            f"There is no checkpoint {file}: give the path of a .safetensors file or train first."
        )
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file.name} is damaged ({error}): delete it and train again.") from error
    _fit_exactly(model, state, arch, file.name)
    model.load_state_dict(state)


def build(arch: str, num_classes: int, weights: str = "auto", keep_head: bool = False) -> nn.Module:
    """A model in eval mode with a fresh Xavier head, and a note of where its weights are from.

    num_classes: 0 builds a timm network without a head, whose attention can still be shown.

    weights: "hub" (timm or torchvision, cached by them), "course" (see course_variant), a variant
    of utils/weights such as "course:mae" (no head to keep) or "course:cifar10" (trained on
    45,000 labelled CIFAR-10 images), "none", the path of a .safetensors checkpoint (head
    included), or "auto": course weights for the slim models, hub weights for all others, printed
    on one line. keep_head keeps the CIFAR-10 head of "cifar10" weights. The model gets .arch, .provenance, .input_size (pixels),
    .mean and .std (RGB, for inputs in 0..1). Raises ValueError for an unknown arch or a
    checkpoint that does not fit, FileNotFoundError or RuntimeError if weights cannot be had.
    """
    requested = weights
    if weights == "auto":
        weights = "course" if arch in COURSE else "hub"
    _check(arch, weights)
    try:
        with quick_offline(weights):
            model = _create(arch, num_classes, pretrained=weights == "hub")
    except Exception as error:  # the hub's clients raise many kinds; each means "no weights"
        if weights != "hub":
            raise
        raise RuntimeError(
            f"The pretrained weights of {arch} are neither cached nor can they be downloaded "
            f"({type(error).__name__}): set XTL_PROFILE=demo, which needs no download, or give "
            "weights= the path of a .safetensors file."
        ) from error
    if num_classes:
        new_head(model)
    if weights == "hub":
        model.provenance = f"hub weights {arch}"
    elif str(weights).partition(":")[0] == "course":
        variant = str(weights)[7:] or course_variant(arch, keep_head)
        model.provenance = _load_course(model, arch, keep_head, variant)
    elif weights == "none":
        model.provenance = "random weights"
    else:
        load_state(model, weights, arch)
        model.provenance = f"checkpoint {Path(weights).name}"
    model.arch = arch
    config = getattr(model, "pretrained_cfg", None) or {}
    small = arch in COURSE
    model.mean, model.std = (
        IMAGENET if small else (config.get("mean", IMAGENET[0]), config.get("std", IMAGENET[1]))
    )
    model.input_size = {"vit_mini": 32, "resnet34_slim": 128, "alexnet_slim": 128}.get(
        arch
    ) or config.get("input_size", (3, 224, 224))[-1]
    if requested == "auto":
        print(f"{arch}: {model.provenance} (profile {profile().name})")
    return model.eval()
