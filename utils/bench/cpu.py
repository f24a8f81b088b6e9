"""How fast is it, beside the usual way? Both sides interleaved in one run, as ratios of time.

Command line:  python -m utils.bench [--device cuda] [--only NAME]     writes figures/bench.json

On a CPU, time is processor time of one thread, which other programs on the machine disturb little;
on a GPU, wall time between synchronisations. Memory is what a call holds at most beyond what was
held before it (resident; on a GPU allocated), in a fresh process for each case.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision import transforms

from .. import data, env, evaluate, explain, models
from ..data import pixels
from ..explain import attention, cams, gradients, iav, lrp
from ..models import Question
from . import measure
from .measure import Entry

FILE = env.FIGURES / "bench.json"


# ---------------------------------------------------------------- one case alone


def _alone(task: str, n: int, steps: int, device: torch.device) -> dict[str, float]:
    """Extra bytes and seconds of one case in this process, after a small call of the same kind."""
    model = models.build("vit_mini", 10, "none").to(device)
    run = {
        "ig": lambda x, s: explain.integrated_gradients(model, x, 0, steps=s),
        "iav": lambda x, s: iav.ia_scores(model, x, torch.ones(len(x), 8, 8)),
    }[task]
    images = _images(n, 32)
    run(images[:1], 1)
    held, seconds = measure.memory(lambda: run(images, steps), device)
    return {"bytes": max(1, held), "seconds": seconds}


def _fresh(task: str, n: int, steps: int, device: torch.device) -> dict[str, float]:
    """The same in a process of its own."""
    words = [
        sys.executable,
        "-m",
        "utils.bench",
        "--device",
        str(device),
        "--case",
        task,
        str(n),
        str(steps),
    ]
    # glibc keeps freed memory for later; told not to, what is resident is what is in use
    frugal = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        words, cwd=env.ROOT, env=os.environ | frugal, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"Measuring {task} alone failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------- the cases


def _images(n: int, size: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def _model(arch: str, device: torch.device, n: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Random weights in eval mode, input (n, 3, H, W) and targets (n,)."""
    torch.manual_seed(0)
    model = models.build(arch, 10, "none").to(device)
    x = models.prepare(model, _images(n, model.input_size))
    return model, x, torch.arange(n, device=device) % 10


def _pil(images: torch.Tensor, size: int) -> list[Image.Image]:
    shown = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    return [image.resize((size, size), Image.Resampling.BILINEAR) for image in shown]


def _pil_batch(images: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """As the published code does it: PIL, ToTensor and Normalize for every image."""
    ready = transforms.Compose([transforms.ToTensor(), transforms.Normalize(model.mean, model.std)])
    return torch.stack([ready(image) for image in _pil(images, model.input_size)])


def input_(device: torch.device, tiny: bool) -> list[Entry]:
    model, images = models.build("resnet34_slim", 10, "none"), _images(8 if tiny else 128, 32)
    model.input_size = 224
    pairs = measure.compare(
        lambda: data.preprocess(images, 224, model.mean, model.std),
        lambda: _pil_batch(images, model),
        torch.device("cpu"),
        2 if tiny else 7,
    )
    theirs = torch.from_numpy(np.stack([np.array(image) for image in _pil(images, 224)])).permute(
        0, 3, 1, 2
    )
    levels = (pixels._resize(images, 224).int() - theirs.int()).abs().max().item()
    return [
        measure.entry(
            "input",
            f"{len(images)} images, 32 to 224 px, one batch against PIL for each",
            pairs,
            2,
            True,
            levels=(levels, 0),
        )
    ]


def evaluation(device: torch.device, tiny: bool) -> list[Entry]:
    model, _, _ = _model("resnet34_slim", device, 1)
    images = _images(4 if tiny else 64, 32)
    found = data.ImageSet(
        images, torch.arange(len(images)) % 10, tuple("0123456789"), "random pixels"
    )
    seen: list[int] = []
    hook = model.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    evaluate.predict(model, found)
    hook.remove()

    def five_passes() -> None:
        with torch.no_grad():
            for _ in range(5):
                for part in images.split(32):
                    model(_pil_batch(part, model).to(device)).cpu()

    pairs = measure.compare(
        lambda: evaluate.predict(model, found), five_passes, device, 1 if tiny else 5
    )
    what = f"resnet34_slim at 128 px, {len(images)} images, one pass against five with PIL"
    return [
        measure.entry(
            "evaluation", what, pairs, 4, True, forwards_per_image=(sum(seen) / len(images), 1)
        )
    ]


def gradcam(device: torch.device, tiny: bool) -> list[Entry]:
    arch = "resnet34" if device.type == "cuda" else "resnet34_slim"
    model, x, targets = _model(arch, device, 2 if tiny else 32)
    # a fresh network's maps are so faint that the 1e-7 in the peer's scaling counts
    models.head(model).weight.data.mul_(1e5)
    cam, wanted = (
        GradCAM(model, [model.layer4[-1]]),
        [ClassifierOutputTarget(t) for t in targets.tolist()],
    )
    ours = partial(cams.gradcam, model, x, Question(targets), batch=len(x), layer=None)
    times = 1 if tiny else 5

    def plain() -> None:
        with torch.no_grad():
            model(x)

    def singly() -> np.ndarray:
        return np.concatenate([cam(x[i : i + 1], wanted[i : i + 1]) for i in range(len(x))])

    forward = measure.compare(ours, plain, device, times)
    single = measure.compare(ours, singly, device, times)
    batch = measure.compare(ours, lambda: cam(x, wanted), device, times)
    mine = torch.nn.functional.interpolate(ours()[:, None], x.shape[-2:], mode="bilinear")[
        :, 0
    ].cpu()
    mine = mine - mine.amin((1, 2), True)
    mine = mine / (mine.amax((1, 2), True) + 1e-7)
    difference = (mine - torch.from_numpy(singly())).abs().max().item()
    what = f"{arch} at {x.shape[-1]} px, {len(x)} images, against"
    return [
        measure.entry(
            "gradcam_single",
            f"{what} pytorch-grad-cam one at a time",
            single,
            8,
            True,
            difference=(difference, 1e-4),
        ),
        measure.entry(
            "gradcam_batch",
            f"{what} pytorch-grad-cam in one batch",
            batch,
            2.5,
            True,
            difference=(difference, 1e-4),
        ),
        measure.entry("gradcam_forward", f"{what} a plain forward pass", forward, 1.15, False),
    ]


def ig_memory(device: torch.device, tiny: bool) -> list[Entry]:
    alone = _alone if tiny else _fresh
    sizes = [(1, 2), (1, 4), (2, 2)] if tiny else [(8, 50), (8, 200), (64, 50)]
    few, long, many = (alone("ig", n, steps, device) for n, steps in sizes)
    each = [
        case["seconds"] / (n * s) for case, (n, s) in zip((few, long, many), sizes, strict=True)
    ]
    model, x, targets = _model("vit_mini", device, 2)
    black = gradients.baseline_of(model, x, "black")
    whole = IntegratedGradients(model).attribute(x, black, target=targets, n_steps=8).sum(1)
    options = dict(steps=8, baseline="black")
    ours = gradients.path_integral(model, x, Question(targets), batch=4, **options)[0]
    also = dict(
        difference=((whole - ours).abs().max().item(), 1e-5),
        time_per_step=(max(each) / min(each), 1.1),
    )
    mega = [case["bytes"] / 1e6 for case in (few, long, many)]
    return [
        measure.entry(
            "ig_memory_steps",
            f"vit_mini, {sizes[1][1]} steps against {sizes[0][1]}",
            [(mega[1], mega[0])],
            1.1,
            False,
            "MB",
            **also,
        ),
        measure.entry(
            "ig_memory_images",
            f"vit_mini, {sizes[2][0]} images against {sizes[0][0]}",
            [(mega[2], mega[0])],
            1.1,
            False,
            "MB",
        ),
    ]


def ig_adaptive(device: torch.device, tiny: bool) -> list[Entry]:
    model = models.build("vit_mini", 10, "course", keep_head=True).to(device)
    images = (
        data.load("shapes10" if tiny else "auto", "test").images[: 2 if tiny else 16].contiguous()
    )
    kept: dict[str, torch.Tensor] = {}

    def run(name: str, steps: int | None) -> None:
        found = explain.integrated_gradients(model, images, steps=steps)
        kept[name] = found.completeness_error <= gradients.TOLERANCE * found.difference.abs()

    full = 8 if tiny else 200
    pair = (
        measure.seconds(lambda: run("adaptive", None), device),
        measure.seconds(lambda: run("fixed", full), device),
    )
    lost = (kept["fixed"].float().mean() - kept["adaptive"].float().mean()).item()
    what = f"vit_mini, {len(images)} images, steps until completeness is met against {full} for all"
    return [measure.entry("ig_adaptive", what, [pair], 1.5, True, share_less_complete=(lost, 0))]


def lrp_(device: torch.device, tiny: bool, batch: int) -> list[Entry]:
    arch = (
        "vit_base_patch16_224" if batch == 1 or device.type == "cuda" else "vit_small_patch16_224"
    )
    model, x, targets = _model("vit_mini" if tiny else arch, device, batch)
    ours = partial(lrp.transformer_attribution, model, x, targets)
    peer = partial(gradients.saliency, model, x, Question(targets), batch=len(x))
    top = 2.5 if batch == 1 else 3.0
    flops = measure.flops(ours) / measure.flops(peer)
    pairs = measure.compare(ours, peer, device, 1 if tiny else 3)
    what = f"{'vit_mini' if tiny else arch}, batch {batch}, against forward and input gradient"
    return [measure.entry(f"lrp_b{batch}", what, pairs, top, False, flops=(flops, top))]


def attention_(device: torch.device, tiny: bool) -> list[Entry]:
    arch = "vit_mini" if tiny else "vit_base_patch16_224"
    model, x, _ = _model(arch, device, 2)

    def plain() -> None:
        with torch.no_grad():
            model(x)

    pairs = measure.compare(lambda: attention.maps(model, x), plain, device, 1 if tiny else 5)
    sizes, alone = ((2, 4), _alone) if tiny else ((100, 5000), _fresh)
    few, many = (alone("iav", n, 1, device) for n in sizes)
    linear = many["seconds"] / sizes[1] / (few["seconds"] / sizes[0])
    what = f"{arch}, batch {len(x)}, against a plain forward; memory and time of IA-scores: vit_mini, {sizes[1]} images against {sizes[0]}"
    also = dict(memory=(many["bytes"] / few["bytes"], 1.5), time_per_image=(linear, 1.1))
    return [measure.entry("attention", what, pairs, 1.15, False, **also)]


def data_share(device: torch.device, tiny: bool) -> list[Entry]:
    found = []
    for arch in ("vit_mini", "resnet34_slim"):
        model, _, targets = _model(arch, device, 4 if tiny else 32)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
        images, generator = _images(len(targets), 32).to(device), torch.Generator().manual_seed(0)

        def prepare(model=model, images=images, generator=generator) -> torch.Tensor:
            return data.preprocess(
                data.augment(images, generator), model.input_size, model.mean, model.std
            )

        def step(model=model, optimizer=optimizer, targets=targets, prepare=prepare) -> None:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(prepare()), targets).backward()
            optimizer.step()

        pairs = measure.compare(prepare, step, device, 1 if tiny else 5)
        top = 0.05 if device.type == "cuda" else 0.1
        found.append(
            measure.entry(
                "data_share",
                f"{arch}, batch {len(targets)}: preparing against the whole step",
                pairs,
                top,
                False,
            )
        )
    return [max(found, key=lambda entry: entry["ratio"])]


CASES: dict[str, Callable[[torch.device, bool], list[Entry]]] = {
    "input": input_,
    "evaluation": evaluation,
    "gradcam": gradcam,
    "ig_memory": ig_memory,
    "ig_adaptive": ig_adaptive,
    "lrp_b1": partial(lrp_, batch=1),
    "lrp_b8": partial(lrp_, batch=8),
    "attention": attention_,
    "data_share": data_share,
}


def run(
    device: str | None = None, only: str | None = None, tiny: bool = False, file: Path = FILE
) -> list[Entry]:
    """Measure the cases (those whose name starts with `only`) and write `file`; all its entries.

    What `only` leaves out stays in the file as it was; each case is kept as soon as it is
    measured. tiny: sizes for tests, whose ratios mean nothing. Raises ValueError for an unknown
    name.
    """
    cases = [
        case
        for name, case in CASES.items()
        if not only or name.startswith(only) or only.startswith(name)
    ]
    if not cases:
        raise ValueError(
            f"There is nothing called {only!r} to measure: use one of {', '.join(CASES)}."
        )
    place, threads = env.device(device or "cpu"), torch.get_num_threads()
    label = torch.cuda.get_device_name() if place.type == "cuda" else "CPU, 1 thread"
    former = json.loads(file.read_text("utf-8")) if file.exists() else []
    kept = {entry["name"]: entry for entry in former}
    torch.set_num_threads(1)
    try:
        for case in cases:
            for entry in case(place, tiny):
                print(
                    f"{entry['name']:17}{entry['ratio']:7.2f}  {entry['bound']} "
                    f"{entry['target']:<5}{'holds' if entry['holds'] else 'MISSED'}  "
                    f"{entry['also'] or ''}",
                    flush=True,
                )
                kept[entry["name"]] = entry | {"device": label}
            env.write(file, json.dumps(list(kept.values()), indent=1) + "\n")
    finally:
        torch.set_num_threads(threads)
    return list(kept.values())


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module's first lines."""
    parser = argparse.ArgumentParser(prog="python -m utils.bench", description=__doc__)
    parser.add_argument("--device", help="cpu (the default) or cuda")
    parser.add_argument("--only", help="one case, such as gradcam")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.case:
            torch.set_num_threads(1)
            task, n, steps = options.case
            print(json.dumps(_alone(task, int(n), int(steps), env.device(options.device))))
        else:
            run(options.device, options.only)
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))
