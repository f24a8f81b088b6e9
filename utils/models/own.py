"""A model of one's own by name: the course's, timm's, torchvision's, Hugging Face's, or a function.

XTL_MODEL=name makes the explanation chapters use it.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import timm
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .parts import head, kind, outputs
from .unwrap import inner
from .wrap import wrap
from .zoo import COURSE, build, card, load_state, quick_offline

SETTING = "XTL_MODEL"
KINDS = (
    "a timm or torchvision name (resnet50), NAME@FILE.safetensors for weights of one's own, "
    "hf:FOLDER for a Hugging Face image classifier, or package.module:function"
)


def _from_function(name: str) -> nn.Module:
    """What a function without arguments returns, wrapped unless it is ready."""
    module, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{name!r} names no function that can be imported ({error}): use {KINDS}."
        ) from error
    model = make()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} returns {type(model).__name__} instead of an nn.Module.")
    return model if hasattr(model, "provenance") else wrap(model)


def _from_hugging_face(folder: str) -> nn.Module:
    """An image classifier that save_pretrained wrote: safetensors and configuration, no network."""
    path = Path(folder).expanduser()
    if not (path / "config.json").exists() or not list(path.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{folder} holds no config.json with a .safetensors file: "
            "save the model there with save_pretrained(folder, safe_serialization=True)."
        )
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
    except ImportError as error:
        raise ImportError("hf:FOLDER needs the package transformers: pip install it.") from error
    module = AutoModelForImageClassification.from_pretrained(
        path, use_safetensors=True, local_files_only=True
    )
    stated = (path / "preprocessor_config.json").exists()
    processor = AutoImageProcessor.from_pretrained(path, local_files_only=True) if stated else None
    return wrap(module, weights=processor)


def _with_weights(arch: str, file: Path) -> nn.Module:
    """This architecture with a checkpoint of one's own, whose head says how many classes there are."""
    if file.suffix != ".safetensors" or not file.exists():
        return build(arch, 2, file)  # its sentence
    theirs = not timm.is_model(arch.partition(".")[0]) and arch in torchvision.models.list_models(
        torchvision.models
    )
    with torch.device("meta"):
        empty = torchvision.models.get_model(arch) if theirs else build(arch, 2, "none")
    name = next(n for n, p in empty.named_parameters() if p is head(empty).weight)
    try:
        state = load_file(file)
    except SafetensorError:
        return build(arch, 2, file)  # its sentence
    classes = len(state[name]) if name in state else 2
    if not theirs:
        return build(arch, classes, file)
    module = torchvision.models.get_model(arch, num_classes=classes)
    load_state(module, file, arch)
    return wrap(module).eval()


def _from_torchvision(name: str) -> nn.Module:
    """With ImageNet's weights and classes; the file is read as numbers only, never run."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    module = torchvision.models.get_model(name, weights=None)
    try:
        module.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
    except OSError as error:
        raise RuntimeError(
            f"The weights of torchvision's {name} are neither cached nor can they be downloaded: "
            f"use {name}@FILE.safetensors."
        ) from error
    return wrap(module, weights=weights)


def _from_timm(name: str) -> nn.Module:
    """With the weights and the head that timm has for it."""
    try:
        with quick_offline("hub"):
            module = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's clients raise many kinds; each means "no weights"
        raise RuntimeError(
            f"The weights of timm's {name} are neither cached nor can they be downloaded "
            f"({type(error).__name__}): use {name}@FILE.safetensors."
        ) from error
    return wrap(module)


def resolve(name: str, weights: str | Path | None = None) -> nn.Module:
    """A classifier by name, with its own head, ready for everything; eval mode.

    name: a course model, a timm or torchvision name (their ImageNet weights), NAME@FILE.safetensors
    (an architecture with weights of one's own), "hf:FOLDER" (what save_pretrained wrote) or
    "package.module:function" (called without arguments). weights: a .safetensors file; with an
    architecture's name the same as NAME@FILE, loaded into what a function returns. Raises
    ValueError for another name, FileNotFoundError or RuntimeError where weights cannot be had.
    """
    if weights is not None:
        if name.startswith("hf:"):
            raise ValueError(f"{name} brings its own weights: leave weights out.")
        if ":" not in name:
            return resolve(f"{name}@{weights}")
        model = _from_function(name).eval()
        load_state(inner(model), weights, model.arch)
        return model
    if name.startswith("hf:"):
        return _from_hugging_face(name[3:]).eval()
    if "@" in name:
        arch, _, file = name.partition("@")
        return _with_weights(arch, Path(file).expanduser())
    if ":" in name:
        return _from_function(name).eval()
    if name in COURSE:
        classes = card(name, "cifar10")["classes"]
        model = build(name, len(classes), "course:cifar10", keep_head=True)
        model.classes = tuple(classes)
        return model
    if timm.is_model(name.partition(".")[0]):
        return _from_timm(name).eval()
    if name in torchvision.models.list_models(torchvision.models):
        return _from_torchvision(name).eval()
    raise ValueError(f"There is no model {name!r}: use {KINDS}.")


def own(like: str, num_classes: int) -> nn.Module | None:
    """The reader's own model, from XTL_MODEL, in the place of a course model; None if there is none.

    like: "cnn" or "vit": a Vision Transformer only stands in for the course's, any other network
    for its CNN. Raises ValueError where its head has another number of classes than the images.
    """
    name = os.environ.get(SETTING)
    if not name:
        return None
    model = resolve(name)
    if kind(model) != like:
        return None
    if outputs(model) != num_classes:
        raise ValueError(
            f"{SETTING}={name} tells {outputs(model)} classes apart and the images have "
            f"{num_classes}: set XTL_DATA to a folder with its own classes."
        )
    print(f"{SETTING}: {name} in the place of the course's {like.upper()}.")
    return model
