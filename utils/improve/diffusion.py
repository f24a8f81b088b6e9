"""A diffusion model as generator: the findings' prompts, painted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import data
from .findings import Evidence, Finding


@dataclass(frozen=True)
class DiffusionGenerator:
    """The findings' prompts painted by Stable Diffusion XL (Podell et al. 2023).

    It needs a GPU and `pip install diffusers`. pipeline: any callable with diffusers' signature
    (prompt, generator=...) -> .images, PIL; by default SDXL, which is downloaded on first use.
    """

    model: str = "stabilityai/stable-diffusion-xl-base-1.0"
    steps: int = 25
    pipeline: Callable[..., Any] | None = None

    def _load(self) -> Callable[..., Any]:
        if self.pipeline is not None:
            return self.pipeline
        try:
            from diffusers import AutoPipelineForText2Image
        except ImportError:
            raise RuntimeError(
                "The package diffusers is not installed: run pip install diffusers, or use "
                "RecomposeGenerator."
            ) from None
        if not torch.cuda.is_available():
            raise RuntimeError(
                "DiffusionGenerator needs a CUDA GPU: use RecomposeGenerator on this machine."
            )
        loaded = AutoPipelineForText2Image.from_pretrained(
            self.model, torch_dtype=torch.float16, use_safetensors=True
        )
        return loaded.to("cuda")

    def make(
        self, evidence: Evidence, requests: Sequence[tuple[Finding, int]], seed: int
    ) -> torch.Tensor:
        """One painting for each request, as large as the evidence's images; uint8 (K, 3, H, W)."""
        paint, size = self._load(), evidence.images.shape[-1]
        made = []
        for k, (finding, _) in enumerate(requests):
            source = torch.Generator().manual_seed(seed + k)
            painted = paint(finding.prompt, num_inference_steps=self.steps, generator=source)
            array = np.array(painted.images[0].convert("RGB"))
            pixels = torch.from_numpy(array).permute(2, 0, 1)[None]
            made.append(data.preprocess(pixels, size, (0.0,) * 3, (1 / 255,) * 3)[0])
        return torch.stack(made).round().to(torch.uint8)
