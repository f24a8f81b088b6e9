"""Preparing, evaluating and training beside the usual way, which takes images one by one."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from .. import data, evaluate, models
from . import measure
from .alone import images_of, model_of
from .measure import Entry


def _pil(images: torch.Tensor, size: int) -> list[Image.Image]:
    shown = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    return [image.resize((size, size), Image.Resampling.BILINEAR) for image in shown]


def _pil_batch(images: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """As the published code does it: PIL, ToTensor and Normalize for every image."""
    ready = transforms.Compose([transforms.ToTensor(), transforms.Normalize(model.mean, model.std)])
    return torch.stack([ready(image) for image in _pil(images, model.input_size)])


def preparing(device: torch.device, tiny: bool) -> list[Entry]:
    model, images = models.build("resnet34_slim", 10, "none"), images_of(8 if tiny else 128, 32)
    model.input_size = 224
    pairs = measure.interleaved(
        lambda: data.preprocess(images, 224, model.mean, model.std),
        lambda: _pil_batch(images, model),
        torch.device("cpu"),
        2 if tiny else 7,
    )
    theirs = torch.from_numpy(np.stack([np.array(image) for image in _pil(images, 224)]))
    theirs = theirs.permute(0, 3, 1, 2)
    ours = data.preprocess(images, 224, (0.0,) * 3, (1 / 255,) * 3).round()
    levels = (ours - theirs).abs().max().item()
    what = f"{len(images)} images, 32 to 224 px, one batch against PIL for each"
    return [measure.entry("input", what, pairs, 2, True, levels=(levels, 0))]


def evaluation(device: torch.device, tiny: bool) -> list[Entry]:
    model, _, _ = model_of("resnet34_slim", device, 1)
    images = images_of(4 if tiny else 64, 32)
    labels = torch.arange(len(images)) % 10
    image_set = data.ImageSet(images, labels, tuple("0123456789"), "random pixels")
    seen: list[int] = []
    hook = model.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    evaluate.predict(model, image_set)
    hook.remove()

    def five_passes() -> None:
        with torch.no_grad():
            for _ in range(5):
                for part in images.split(32):
                    model(_pil_batch(part, model).to(device)).cpu()

    pairs = measure.interleaved(
        lambda: evaluate.predict(model, image_set), five_passes, device, 1 if tiny else 5
    )
    what = f"resnet34_slim at 128 px, {len(images)} images, one pass against five with PIL"
    once = dict(forwards_per_image=(sum(seen) / len(images), 1))
    return [measure.entry("evaluation", what, pairs, 4, True, **once)]


def data_share(device: torch.device, tiny: bool) -> list[Entry]:
    entries = []
    for arch in ("vit_mini", "resnet34_slim"):
        model, _, targets = model_of(arch, device, 4 if tiny else 32)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
        images, generator = images_of(len(targets), 32).to(device), torch.Generator().manual_seed(0)

        def prepare(model=model, images=images, generator=generator) -> torch.Tensor:
            pixels = data.augment(images, generator)
            return data.preprocess(pixels, model.input_size, model.mean, model.std)

        def step(model=model, optimizer=optimizer, targets=targets, prepare=prepare) -> None:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(prepare()), targets).backward()
            optimizer.step()

        pairs = measure.interleaved(prepare, step, device, 1 if tiny else 5)
        top = 0.05 if device.type == "cuda" else 0.1
        what = f"{arch}, batch {len(targets)}: preparing against the whole step"
        entries.append(measure.entry("data_share", what, pairs, top, False))
    return [max(entries, key=lambda entry: entry["ratio"])]
