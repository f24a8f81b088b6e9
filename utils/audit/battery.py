"""The audit itself: which parts there are, how many images each gets, and every part on disk at once.

A part is one question asked of one method. It is written as soon as it is measured, so an audit
that was stopped goes on; how many images a part uses is decided once, before the first, and kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats as tests
from torch import nn
from tqdm.auto import tqdm

from .. import env, explain, stats
from .questions import QUESTIONS, Maps, Question
from .subject import Subject

LEAST, MOST = 6, 64  # images of a part: fewer say nothing, more cost time without need
SPREAD = 0.25  # standard deviation between images that the power calculation assumes
METHODS = (
    "saliency",
    "smoothgrad",
    "integrated_gradients",
    "gradcam",
    "lrp",
    "attnlrp",
    "attention_rollout",
    "gradient_rollout",
    "occlusion",
)

# enough to rank regions: an audit asks for hundreds of maps
OPTIONS: dict[str, dict[str, Any]] = {
    "smoothgrad": {"samples": 8},
    "integrated_gradients": {"steps": 16},
    "occlusion": {"grid": 4},
}


def fitting(subject: Subject, methods: Sequence[str] = METHODS) -> dict[str, str]:
    """{method: "" where it explains this model, else the reason why not}, tried on one image."""
    reasons = {}
    for name in methods:
        if name not in explain.METHODS:
            raise ValueError(
                f"There is no method {name!r}: use some of {', '.join(explain.METHODS)}."
            )
        try:
            maps_of(name, None)(subject.model, subject.images[:1], subject.preds[:1])
            reasons[name] = ""
        except (ValueError, RuntimeError) as error:
            reasons[name] = str(error).splitlines()[0]
    return reasons


def maps_of(method: str, chunk: int | None) -> Maps:
    """The method as a function of model, images and targets."""

    def run(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        options = OPTIONS.get(method, {})
        return explain.explain(model, images, targets, method=method, chunk=chunk, **options)

    return run


def _plan(subject: Subject, methods: Sequence[str], minutes: float) -> dict[str, int]:
    """How many images each part gets: enough for its power calculation, as far as the time allows.

    The time of a part is estimated from one map of the method and one forward pass.
    """
    times = {}
    for method in methods:
        begun = time.perf_counter()
        maps_of(method, None)(subject.model, subject.images[:1], subject.preds[:1])
        times[method] = time.perf_counter() - begun
    forward = min(times.values()) / 2
    images, seconds = {}, {}
    for question in QUESTIONS.values():
        most = min(MOST, len(subject.images))
        n = max(min(LEAST, most), min(most, stats.images_needed(question.size, SPREAD)))
        for method in methods:
            part = f"{question.name}.{method}"
            images[part] = n
            seconds[part] = n * (4 * times[method] + question.cost * forward)
    share = min(1.0, 60 * minutes / max(1e-9, sum(seconds.values())))
    return {part: max(min(LEAST, n), math.floor(share * n)) for part, n in images.items()}


def _refusal(subject: Subject, question: Question) -> str:
    """Why a question cannot be asked of this model and these images; empty if it can."""
    if subject.outputs < question.classes:
        return f"it needs a model with {question.classes} classes or more"
    if len(subject.images) < LEAST:
        return f"it needs {LEAST} images, and there are {len(subject.images)}"
    return ""


def _key(subject: Subject, minutes: float, methods: Sequence[str]) -> str:
    """What an interrupted audit must agree in to be taken up: model, images, methods, budget."""
    digest = hashlib.sha256(subject.images.numpy().tobytes())
    digest.update(subject.logits.numpy().tobytes())
    digest.update(json.dumps([minutes, list(methods), subject.source]).encode())
    return digest.hexdigest()[:16]


def measure(
    subject: Subject,
    question: Question,
    method: str,
    n: int,
    chunk: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """One part: {"n", "score", "low", "high", "floor", "effect", ..., "p", "verdict" before Holm}.

    The effect is the mean of score - floor over images. A question that cannot be asked gives
    {"refused": reason}.
    """
    reason = _refusal(subject, question)
    if not reason:
        rows = torch.linspace(0, len(subject.images) - 1, n).long()
        try:
            found = question.measure(subject, maps_of(method, chunk), rows, seed)
        except ValueError as error:
            reason = str(error)
    if reason:
        return {"refused": reason}
    effect = stats.difference_interval(found.values, found.floor, seed=seed)
    beyond = found.values - found.floor - question.size
    constant = bool(np.ptp(beyond) == 0)
    p = (
        float(beyond.mean() <= 0)
        if constant
        else float(tests.ttest_1samp(beyond, 0, alternative="greater").pvalue)
    )
    return {
        "n": len(found.values),
        "score": float(found.values.mean()),
        "floor": float(found.floor.mean()),
        "effect": effect.mean,
        "low": effect.low,
        "high": effect.high,
        "size": question.size,
        "p": p,
        "references": found.references,
    }


def verdicts(parts: dict[str, dict[str, Any]]) -> None:
    """Write "adjusted" (Holm over all parts) and "verdict" into each measured part, in place.

    "yes": the effect is above the size that counts, also after correction; "no": its whole
    interval lies below that size; "cannot be told" otherwise.
    """
    measured = [part for part in parts.values() if "p" in part]
    adjusted = stats.holm([part["p"] for part in measured]) if measured else []
    for part, p in zip(measured, adjusted, strict=True):
        part["adjusted"] = float(p)
        if p < 0.05 and part["effect"] > part["size"]:
            part["verdict"] = "yes"
        elif part["high"] < part["size"]:
            part["verdict"] = "no"
        else:
            part["verdict"] = "cannot be told"


def run(
    subject: Subject,
    out: Path,
    methods: Sequence[str] = METHODS,
    minutes: float = 10.0,
    chunk: int | None = None,
    questions: Sequence[str] = tuple(QUESTIONS),
) -> dict[str, Any]:
    """Ask every question of every method that fits; the answers, also in out/audit.json.

    Goes on where an earlier call with the same model, images, methods and budget stopped. chunk:
    images at once; it changes nothing in the results.
    """
    reasons = fitting(subject, methods)
    fits = [name for name, reason in reasons.items() if not reason]
    if not fits:
        raise ValueError(f"No method explains this model: {next(iter(reasons.values()))}")
    key, file = _key(subject, minutes, methods), out / "parts.json"
    kept = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if kept.get("key") != key:
        kept = {"key": key, "plan": _plan(subject, fits, minutes), "parts": {}}
    asked = [f"{q}.{m}" for q in questions for m in fits]
    with tqdm(asked, unit="part", desc="audit") as bar:
        for part in bar:
            if part in kept["parts"]:
                continue
            name, method = part.split(".")
            bar.set_postfix_str(part)
            n = kept["plan"][part]
            kept["parts"][part] = measure(subject, QUESTIONS[name], method, n, chunk)
            env.write(file, json.dumps(kept, indent=1))
    parts = {part: dict(kept["parts"][part]) for part in asked}
    verdicts(parts)
    report = {
        "model": getattr(subject.model, "arch", type(subject.model).__name__),
        "provenance": getattr(subject.model, "provenance", "as given"),
        "source": subject.source,
        "images": len(subject.images),
        "outputs": subject.outputs,
        "notes": list(subject.notes),
        "quality": subject.quality(),
        "left_out": {name: reason for name, reason in reasons.items() if reason},
        "parts": parts,
        "comparisons": sum("p" in p for p in parts.values()),
        "versions": env.versions(),
        "device": env.device_name(),
    }
    env.write(out / "audit.json", json.dumps(report, indent=1) + "\n")
    return report


def recommended(report: dict[str, Any]) -> dict[str, str]:
    """{question: a sentence naming the method with the largest effect among those that pass}."""
    sentences = {}
    for name, question in QUESTIONS.items():
        parts = {p.split(".")[1]: v for p, v in report["parts"].items() if p.split(".")[0] == name}
        passing = {m: v for m, v in parts.items() if v.get("verdict") == "yes"}
        refused = [v["refused"] for v in parts.values() if "refused" in v]
        if passing:
            best = max(passing, key=lambda m: passing[m]["effect"])
            title = explain.METHODS[best].title
            sentences[question.text] = (
                f"{title} does best: {passing[best]['effect']:.2f} "
                f"[{passing[best]['low']:.2f}, {passing[best]['high']:.2f}], {question.unit}; "
                f"{len(passing)} of {len(parts)} methods pass."
            )
        elif refused and len(refused) == len(parts):
            sentences[question.text] = f"Not tested: {refused[0]}."
        else:
            unclear = sum(v.get("verdict") == "cannot be told" for v in parts.values())
            sentences[question.text] = (
                f"No method passes; for {unclear} of {len(parts)} it cannot be told from so few images."
            )
    return sentences
