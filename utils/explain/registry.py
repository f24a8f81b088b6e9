"""What methods there are: for each its name, its options, and the models that it works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from . import attnlrp, cam_library, cams, gradients, grids, perturbation

ANY = frozenset({"cnn", "vit"})


@dataclass(frozen=True)
class Method:
    """One way to explain: run(model, x (b, C, H, W), question, *, batch, **options) -> (b, H', W').

    batch bounds the copies of images that run holds at once.
    """

    name: str
    title: str
    run: Callable[..., torch.Tensor]
    works_on: frozenset[str] = ANY
    signed: bool = False  # maps can be negative: evidence against the target
    options: dict[str, Any] = field(default_factory=dict)  # names and defaults
    chunk: int = 32  # images at once, unless the caller says otherwise
    uses_target: bool = True  # False: the same map for every class
    costly: bool = False  # a hundred passes an image or more: not for plates of many images
    precise: bool = False  # computes in 32 bits even for a model in 16, and gets its input so

    def with_defaults(self, options: dict[str, Any]) -> dict[str, Any]:
        """These options and the defaults of the others. Raises ValueError for one that there is not."""
        unknown = sorted(options.keys() - self.options.keys())
        if unknown:
            raise ValueError(
                f"{self.name} has no option {unknown[0]!r}: it has {', '.join(self.options) or 'none'}."
            )
        return {**self.options, **options}


def _cam(
    name: str,
    gradient: bool = True,
    works_on: frozenset[str] = ANY,
    uses_target: bool = True,
    costly: bool = False,
    **options: Any,
) -> Method:
    """A class of pytorch-grad-cam."""
    return Method(
        name.lower(),
        name,
        partial(cam_library.library, cam=name, gradient=gradient),
        works_on,
        options=dict(layer=None, **options),
        uses_target=uses_target,
        costly=costly,
    )


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("saliency", "Saliency", gradients.saliency),
        Method(
            "smoothgrad",
            "SmoothGrad",
            gradients.smoothgrad,
            options=dict(samples=25, sigma=0.15, seed=0),
        ),
        Method(
            "integrated_gradients",
            "Integrated Gradients",
            gradients.integrated_gradients,
            signed=True,
            options=dict(steps=None, baseline="black"),
        ),
        Method(
            "expected_gradients",
            "Expected Gradients",
            gradients.expected_gradients,
            signed=True,
            options=dict(baselines=None, steps=8, seed=0),
            costly=True,
        ),
        Method("gradcam", "Grad-CAM", cams.gradcam, options=dict(layer=None), chunk=64),
        _cam("HiResCAM"),
        _cam("LayerCAM"),
        _cam("EigenCAM", gradient=False, uses_target=False),
        _cam("FinerCAM", comparisons=3, alpha=1.0),
        _cam("ScoreCAM", gradient=False, costly=True),
        _cam("AblationCAM", gradient=False, costly=True, works_on=frozenset({"cnn"})),
        Method(
            "occlusion",
            "Occlusion",
            perturbation.occlusion,
            signed=True,
            options=dict(grid=8, overlap=1, fill="mean"),
        ),
        Method(
            "rise",
            "RISE",
            perturbation.rise,
            signed=True,
            options=dict(masks=512, grid=7, keep=0.5, fill="mean", seed=0),
            costly=True,
        ),
        Method(
            "shapley",
            "Shapley values",
            perturbation.shapley,
            signed=True,
            options=dict(grid=3, fill="mean", permutations=32, seed=0),
            costly=True,
        ),
        Method(
            "attnlrp",
            "AttnLRP",
            attnlrp.attnlrp,
            frozenset({"vit"}),
            signed=True,
            options=dict(cp=False),
            chunk=16,
            precise=True,
        ),
        Method(
            "lrp",
            "LRP",
            grids.relevance,
            signed=True,
            options=dict(start_layer=0),
            chunk=8,
            precise=True,
        ),
        Method(
            "attention",
            "Attention",
            grids.raw_attention,
            frozenset({"vit"}),
            options=dict(block=-1, head=None),
            uses_target=False,
        ),
        Method(
            "attention_rollout",
            "Attention rollout",
            grids.rollout,
            frozenset({"vit"}),
            chunk=16,
            uses_target=False,
        ),
        Method(
            "gradient_rollout",
            "Gradient rollout",
            grids.gradient_rollout,
            frozenset({"vit"}),
            chunk=16,
        ),
    )
}
