"""What the ImageNet network that teaches small ones computes from images, stored once.

The teacher is models.imagenet(), EfficientNet-Lite0.
"""

from __future__ import annotations

import contextlib
import copy
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm.auto import tqdm

from .. import data, models
from ..env import RUNS, alone, device, fingerprint
from ..models import logits_of
from .checkpoint import save
from .recipes import TEACHER
from .supervised import fit

SIZE = 256  # pixels of the images that the teacher sees while it teaches: enough for 8 x 8 cells
TEACHER_SIZE = 128  # pixels at which it is fine-tuned and then asked for probabilities
# cells along a side after blocks[5]; channels there and at the end
GRID, DENSE, POOLED = 8, 192, 1280
CHUNK, AT_ONCE = (
    50,
    10,
)  # images between two notes of progress; images at once, as a cache holds them


# ---------------------------------------------------------------- what it computes


def _folded(model: nn.Module) -> nn.Module:
    """A copy in bfloat16, batch norms folded into convolutions: the same features, faster."""
    model = copy.deepcopy(model)
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d))
    ]
    for (conv_name, conv), (norm_name, norm) in zip(layers[::2], layers[1::2], strict=True):
        model.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        model.set_submodule(norm_name, norm.act)
    return model.to(torch.bfloat16, memory_format=torch.channels_last)


@torch.inference_mode()
def teacher_features(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the teacher computes from uint8 images (B, 3, h, w), resized to 256 pixels.

    Returns dense features (B, 64, 192), row by row over the 8 x 8 cells after blocks[5], and
    pooled features (B, 1280), from which the teacher's classifier makes its logits.
    """
    x = data.preprocess(images, SIZE, model.mean, model.std).to(model.conv_stem.weight.dtype)
    x = model.bn1(model.conv_stem(x.contiguous(memory_format=torch.channels_last)))
    for block in model.blocks[:6]:
        x = block(x)
    dense = x.flatten(2).transpose(1, 2)
    for block in model.blocks[6:]:
        x = block(x)
    pooled = model.global_pool(model.bn2(model.conv_head(x)))
    return dense, pooled


# ---------------------------------------------------------------- features, computed once


def _open(file: Path, shape: tuple[int, ...], kind: str = "float16") -> np.ndarray:
    """A memory-mapped, writable .npy file of this shape; made, full of zeros, if it is absent."""
    if not file.exists():
        part = file.with_suffix(f".{os.getpid()}.npy")
        np.lib.format.open_memmap(part, "w+", kind, shape).flush()
        with contextlib.suppress(FileExistsError):  # another process was quicker: its file counts
            os.link(part, file)
        part.unlink()
    found = np.load(file, mmap_mode="r+")
    if found.shape != shape:
        raise ValueError(
            f"{file} holds {found.shape}, not {shape}: delete it, it is of other images."
        )
    return found


def stored_features(images: torch.Tensor, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's features of uint8 images (N, 3, h, w) and of their mirror images, in float16.

    Returns dense (2, N, 64, 192) and pooled (2, N, 1280), memory-mapped from `folder`; index 1 of
    the first axis is the mirror image. What is already there is not computed again, so a stopped
    call goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n = len(images)
    dense = _open(folder / "dense.npy", (2, n, GRID * GRID, DENSE))
    pooled = _open(folder / "pooled.npy", (2, n, POOLED))
    chunks = -(-n // CHUNK)
    done = _open(folder / "done.npy", (2, chunks), "uint8")
    todo = [(view, c) for view in (0, 1) for c in range(chunks) if not done[view, c]]
    if todo:
        model = _folded(models.imagenet())
        for view, chunk in tqdm(todo, desc="teacher's features", unit="chunk", mininterval=5.0):
            rows = slice(chunk * CHUNK, min(n, (chunk + 1) * CHUNK))
            pixels = images[rows].flip(3) if view else images[rows]
            parts = [teacher_features(model, few) for few in pixels.split(AT_ONCE)]
            for stored, computed in zip((dense, pooled), zip(*parts, strict=True), strict=True):
                stored[view, rows] = torch.cat(computed).half().numpy()
            done[view, chunk] = 1
    return torch.from_numpy(dense), torch.from_numpy(pooled)


# ---------------------------------------------------------------- what it says after fine-tuning


def probabilities(name: str, pool: data.ImageSet, val: data.ImageSet) -> torch.Tensor:
    """A teacher's class probabilities (N, C) for `pool`, mean over image and mirror image.

    name: a course architecture, with its weights cifar10, or "imagenet": the ImageNet network,
    fine-tuned on `pool` first (recipes.TEACHER; resumable), and its answers stored with that run.
    """
    if name != "imagenet":
        guide = models.build(name, len(pool.classes), "course", keep_head=True).to(device())
        return _mirrored(guide, pool.images)
    folder = RUNS / "pretrain" / "teacher"
    file = folder / f"probabilities-{fingerprint(pool.images[::100])}.safetensors"
    with alone(folder):  # two students may need the same teacher: one process trains it
        if not file.exists():
            guide = models.imagenet()
            guide.reset_classifier(len(pool.classes))
            guide.input_size = TEACHER_SIZE
            fit(guide.to(device()), pool, val, TEACHER, folder)
            save(file, {"probabilities": _mirrored(guide, pool.images)})
    return load_file(file)["probabilities"]


def _mirrored(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """A model's probabilities (N, C) of uint8 images (N, 3, h, w), mean with the mirror images'."""
    return sum(logits_of(model, view).softmax(1) for view in (images, images.flip(3))) / 2
