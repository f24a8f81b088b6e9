"""Explanations beside peers and beside plain forward and backward passes: time, memory, operations."""

from __future__ import annotations

from functools import partial
from statistics import median

import numpy as np
import torch
from captum.attr import IntegratedGradients
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from .. import data, explain, models
from ..explain import attention, cams, gradients, lrp
from ..models import Question
from . import measure
from .alone import fresh, here, model_of
from .measure import Entry

FORWARD = 1.15  # of a forward pass, which no map can do without: what Grad-CAM may cost


def gradcam(device: torch.device, tiny: bool) -> list[Entry]:
    """Against pytorch-grad-cam and against a forward pass, the floor.

    How much faster than the peer it can be follows from the floor: the peer's time over FORWARD
    forward passes, measured in the same run.
    """
    arch = "resnet34" if device.type == "cuda" else "resnet34_slim"
    model, x, targets = model_of(arch, device, 2 if tiny else 32)
    # a fresh network's maps are so faint that the 1e-7 in the peer's scaling counts
    models.head(model).weight.data.mul_(1e5)
    cam, wanted = (
        GradCAM(model, [model.layer4[-1]]),
        [*map(ClassifierOutputTarget, targets.tolist())],
    )
    ours = partial(cams.gradcam, model, x, Question(targets), batch=len(x), layer=None)
    times = 1 if tiny else 5

    def plain() -> None:
        with torch.no_grad():
            model(x)

    def singly() -> np.ndarray:
        return np.concatenate([cam(x[i : i + 1], wanted[i : i + 1]) for i in range(len(x))])

    forward = measure.interleaved(ours, plain, device, times)
    single = measure.interleaved(ours, singly, device, times)
    batch = measure.interleaved(ours, lambda: cam(x, wanted), device, times)
    mine = torch.nn.functional.interpolate(ours()[:, None], x.shape[-2:], mode="bilinear")
    mine = mine[:, 0].cpu()
    mine = mine - mine.amin((1, 2), True)
    mine = mine / (mine.amax((1, 2), True) + 1e-7)
    alike = dict(difference=((mine - torch.from_numpy(singly())).abs().max().item(), 1e-4))
    what = f"{arch} at {x.shape[-1]} px, {len(x)} images, against"
    peer = f"{what} pytorch-grad-cam"
    floor = FORWARD * median(seconds for _, seconds in forward)
    reach = [round(median(seconds for _, seconds in p) / floor, 2) for p in (single, batch)]
    return [
        measure.entry("gradcam_single", f"{peer} one at a time", single, reach[0], True, **alike),
        measure.entry("gradcam_batch", f"{peer} in one batch", batch, reach[1], True, **alike),
        measure.entry("gradcam_forward", f"{what} a plain forward pass", forward, FORWARD, False),
    ]


def ig_memory(device: torch.device, tiny: bool) -> list[Entry]:
    measured = here if tiny else fresh
    sizes = [(1, 2), (1, 4), (2, 2)] if tiny else [(8, 50), (8, 200), (64, 50)]
    short, long, many = (measured("ig", n, steps, device) for n, steps in sizes)
    cases = zip((short, long, many), sizes, strict=True)
    each = [case["seconds"] / (n * s) for case, (n, s) in cases]
    model, x, targets = model_of("vit_mini", device, 2)
    black = gradients.baseline_of(model, x, "black")
    whole = IntegratedGradients(model).attribute(x, black, target=targets, n_steps=8).sum(1)
    options = dict(steps=8, baseline="black")
    ours = gradients.path_integral(model, x, Question(targets), batch=4, **options)[0]
    also = dict(difference=((whole - ours).abs().max().item(), 1e-5))
    also |= dict(time_per_step=(max(each) / min(each), 1.1))
    few, steps, images = (case["bytes"] / 1e6 for case in (short, long, many))
    limit = dict(target=1.1, faster=False, unit="MB")
    what = f"vit_mini, {sizes[1][1]} steps against {sizes[0][1]}"
    by_steps = measure.entry("ig_memory_steps", what, [(steps, few)], **limit, **also)
    what = f"vit_mini, {sizes[2][0]} images against {sizes[0][0]}"
    return [by_steps, measure.entry("ig_memory_images", what, [(images, few)], **limit)]


def ig_adaptive(device: torch.device, tiny: bool) -> list[Entry]:
    model = models.build("vit_mini", 10, "course", keep_head=True).to(device)
    source, n = ("shapes10", 2) if tiny else ("auto", 16)
    images = data.load(source, "test").images[:n].contiguous()
    kept: dict[str, torch.Tensor] = {}

    def run(name: str, steps: int | None) -> None:
        result = explain.integrated_gradients(model, images, steps=steps)
        kept[name] = result.completeness_error <= gradients.TOLERANCE * result.difference.abs()

    full = 8 if tiny else 200
    pair = (
        measure.seconds(lambda: run("adaptive", None), device),
        measure.seconds(lambda: run("fixed", full), device),
    )
    lost = (kept["fixed"].float().mean() - kept["adaptive"].float().mean()).item()
    what = f"vit_mini, {len(images)} images, steps until completeness is met against {full} for all"
    return [measure.entry("ig_adaptive", what, [pair], 1.5, True, share_less_complete=(lost, 0))]


def lrp_(device: torch.device, tiny: bool, batch: int) -> list[Entry]:
    size = "base" if batch == 1 or device.type == "cuda" else "small"
    arch = "vit_mini" if tiny else f"vit_{size}_patch16_224"
    model, x, targets = model_of(arch, device, batch)
    ours = partial(lrp.transformer_attribution, model, x, targets)
    peer = partial(gradients.saliency, model, x, Question(targets), batch=len(x))
    # its last 0.5: a forward pass more, to check that the replay gives the model's own logits
    top = 3.0 if batch == 1 else 3.5
    flops = measure.flops(ours) / measure.flops(peer)
    pairs = measure.interleaved(ours, peer, device, 1 if tiny else 3)
    what = f"{arch}, batch {batch}, against forward and input gradient"
    return [measure.entry(f"lrp_b{batch}", what, pairs, top, False, flops=(flops, top))]


def attention_(device: torch.device, tiny: bool) -> list[Entry]:
    arch = "vit_mini" if tiny else "vit_base_patch16_224"
    model, x, _ = model_of(arch, device, 2)

    def plain() -> None:
        with torch.no_grad():
            model(x)

    pairs = measure.interleaved(lambda: attention.maps(model, x), plain, device, 1 if tiny else 5)
    sizes, measured = ((2, 4), here) if tiny else ((100, 5000), fresh)
    less, more = (measured("iav", n, 1, device) for n in sizes)
    linear = more["seconds"] / sizes[1] / (less["seconds"] / sizes[0])
    what = f"{arch}, batch {len(x)}, against a plain forward; memory and time of IA-scores: vit_mini, {sizes[1]} images against {sizes[0]}"
    also = dict(memory=(more["bytes"] / less["bytes"], 1.5), time_per_image=(linear, 1.1))
    return [measure.entry("attention", what, pairs, 1.15, False, **also)]
