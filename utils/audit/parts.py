"""One question asked of one method: whether it can be asked, and the numbers image by image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .. import explain
from .answers import Part, answer
from .questions import LEAST, AuditQuestion, Maps
from .subject import Subject

USUAL_METHODS = (
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


def maps_of(subject: Subject, method: str, chunk: int | None = None) -> Maps:
    """The method, with the audit's options; chunk: images at once, which changes no result."""

    def run(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        options = OPTIONS.get(method, {})
        return explain.explain(model, images, targets, method=method, chunk=chunk, **options)

    return Maps(subject, run, method)


def fitting(subject: Subject, methods: Sequence[str] = USUAL_METHODS) -> dict[str, str]:
    """{method: "" where it explains this model, else the reason why not}, tried on one image."""
    reasons = {}
    for name in methods:
        if name not in explain.METHODS:
            raise ValueError(
                f"There is no method {name!r}: use some of {', '.join(explain.METHODS)}."
            )
        try:
            maps_of(subject, name).own(torch.arange(1))
            reasons[name] = ""
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:
            reasons[name] = (str(error).splitlines() or [type(error).__name__])[0]
    return reasons


def refusal(subject: Subject, question: AuditQuestion, method: str) -> str:
    """Why a question cannot be asked of a method, a model and these images; empty if it can."""
    if subject.outputs < question.classes:
        return f"it needs a model with {question.classes} outputs or more"
    if len(subject.images) < LEAST:
        return f"it needs {LEAST} images, and there are {len(subject.images)}"
    return question.refuses(subject, method)


def extended(part: Part, question: AuditQuestion, maps: Maps, n: int, seed: int = 0) -> Part:
    """The part with the first n images in it; those that it has are not measured again."""
    start = len(part.get("values", ()))
    if "refused" in part or start >= n:
        return part
    subject, begun = maps.subject, time.perf_counter()
    rows = torch.randperm(len(subject.images), generator=torch.Generator().manual_seed(0))[start:n]
    try:
        new = question.measure(maps, rows, seed)
    except ValueError as error:
        return {"refused": str(error)}
    old: Part = {"values": [], "references": {}, "beside": {}, "seconds": 0.0} | part
    return {
        "values": [*old["values"], *new.values.tolist()],
        "bar": new.bar,
        "references": {
            k: [*old["references"].get(k, []), *v.tolist()] for k, v in new.references.items()
        },
        "beside": {k: [*old["beside"].get(k, []), *v.tolist()] for k, v in new.beside.items()},
        "seconds": old["seconds"] + time.perf_counter() - begun,
    }


def measure(
    subject: Subject,
    question: AuditQuestion,
    method: str,
    n: int,
    chunk: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """One question asked of one method on n images, without a file; see answers.answer.

    A question that cannot be asked gives {"refused": reason}.
    """
    reason = refusal(subject, question, method)
    part: Part = {"refused": reason} if reason else {}
    n = min(n, len(subject.images))
    return answer(
        question.name, extended(part, question, maps_of(subject, method, chunk), n, seed), seed
    )
