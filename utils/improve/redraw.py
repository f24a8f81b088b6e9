"""The offline generator for Shapes-10: its renderer draws again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..data import shapes
from .findings import Evidence, Finding, appearance, centre


@dataclass(frozen=True)
class ShapesGenerator:
    """Shapes-10 draws many images of the class; those most like the failing image are kept."""

    candidates: int = 12  # drawings for each image that is kept

    def make(
        self, evidence: Evidence, requests: Sequence[tuple[Finding, int]], seed: int
    ) -> torch.Tensor:
        """One new drawing for each request; uint8 (K, 3, H, W)."""
        members = torch.tensor([i for _, i in requests])
        label = torch.tensor([shapes.CLASSES.index(evidence.classes[f.label]) for f, _ in requests])
        every = label.repeat_interleave(self.candidates)
        # seeds apart from those of the set itself (10 and 11)
        drawn, masks = shapes.draw(every, evidence.images.shape[-1], seed=100_003 + seed)
        known = None if evidence.masks is None else evidence.masks[members]
        wanted = self._look(evidence.images[members], known)
        offered = self._look(drawn, None if known is None else masks)
        unit = offered.std(0).clamp(min=1e-6)
        offered = offered.view(len(requests), self.candidates, -1)
        away = ((offered - wanted[:, None]) / unit).norm(dim=2)
        return drawn[torch.arange(len(requests)) * self.candidates + away.argmin(1)]

    @staticmethod
    def _look(images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        looks = [*appearance(images).values()]
        if masks is not None:  # size and place
            looks += [masks.float().mean((1, 2)), *centre(masks).T]
        return torch.stack(looks, 1)
