"""The analyst of the paper: a language model that sees each mistake with its map."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, field

import torch
from PIL import Image

from ..plots import overlay, to_rgb
from .findings import Evidence, Finding
from .transport import KEY, WAY_ON, NoReplyError, Transport

__all__ = ["ASK", "KEY", "LOOK", "ClaudeAnalyst", "Transport"]

SHOWN = 256  # pixels: small images are enlarged to be seen
LOOK = (
    "An image classifier was shown the first picture, of the class {label}, and said {predicted} "
    "({confidence:.0%} sure). The second picture shows in colour where it looked. In at most "
    "three sentences: what about this picture made it fail, and did it look at the {label}?"
)
ASK = (
    "A classifier took a picture of the class {label} for {predicted}. What was found: {finding}\n"
    "Write a prompt for an image generator, at most 100 words, for new pictures of the class "
    "{label} that are difficult in the same way. Name the colour of the {label} and the "
    "difficulty. Answer with the prompt alone."
)


@dataclass(frozen=True)
class ClaudeAnalyst:
    """Two requests for each mistake: what went wrong, then a prompt for images that would help.

    limit: how many mistakes, the most confident first; service: how requests are sent, what they
    may cost, and the folder of kept replies.
    """

    limit: int = 12
    service: Transport = field(default_factory=Transport)

    def analyse(self, evidence: Evidence) -> list[Finding]:
        """One finding for each of the first `limit` mistakes; what the service refuses is left out.

        That is printed, and so is an upper bound of the cost before anything is sent. Raises
        ValueError without a mistake or if it may cost too much, RuntimeError without the package
        anthropic or a key, or if the service gave no usable reply at all.
        """
        if not len(evidence.failed):
            raise ValueError(
                "There is no mistake to analyse: give more validation images, or a weaker model."
            )
        mistakes = evidence.failed[: self.limit].tolist()
        looks = {i: self._look(evidence, i) for i in mistakes}
        client = self._paid_client(evidence, looks)
        findings, problems = [], []
        for i in mistakes:
            try:
                text = self.service.reply(client, looks[i])
                prompt = self.service.reply(client, self._ask(evidence, i, looks[i]), words=100)
            except NoReplyError as problem:
                problems.append(str(problem))
                continue
            label, other = int(evidence.labels[i]), int(evidence.predicted[i])
            findings.append(Finding(label, other, (i,), text, prompt))
        if problems:
            print(f"{len(problems)} of {len(mistakes)} mistakes have no finding: {problems[0]}")
        if not findings:
            raise RuntimeError(
                f"The service gave no usable reply ({problems[0]}): try later, or {WAY_ON}."
            )
        return findings

    def _paid_client(self, evidence: Evidence, looks: dict[int, list[dict]]) -> object:
        """The client, after its cost was shown; None if every reply is kept already."""
        cached = self.service.cached
        todo = [i for i, look in looks.items() if cached(look) is None]
        asks = [
            i
            for i, look in looks.items()
            if i in todo or cached(self._ask(evidence, i, look)) is None
        ]
        if not asks:
            return None
        client = self.service.client()
        picture = math.ceil(SHOWN * SHOWN / 750)  # tokens: the service's rule for images
        tokens = len(todo) * (2 * picture + 200) + len(asks) * (200 + self.service.max_tokens)
        self.service.show_cost(len(todo) + len(asks), tokens, f"{len(looks)} mistakes")
        return client

    def _look(self, evidence: Evidence, i: int) -> list[dict]:
        image = evidence.images[i]
        painted = torch.from_numpy(overlay(image, evidence.maps[i]) * 255).round().to(torch.uint8)
        pictures = [torch.from_numpy(to_rgb(image) * 255).round().to(torch.uint8), painted]
        words = LOOK.format(confidence=float(evidence.confidence[i]), **self._names(evidence, i))
        return [*(_png(picture) for picture in pictures), {"type": "text", "text": words}]

    def _ask(self, evidence: Evidence, i: int, look: list[dict]) -> list[dict]:
        """The second request; its words hold the first one's reply."""
        finding = self.service.cached(look) or ""
        return [{"type": "text", "text": ASK.format(finding=finding, **self._names(evidence, i))}]

    @staticmethod
    def _names(evidence: Evidence, i: int) -> dict[str, str]:
        return {
            "label": evidence.classes[evidence.labels[i]],
            "predicted": evidence.classes[evidence.predicted[i]],
        }


def _png(picture: torch.Tensor) -> dict:
    """uint8 (H, W, 3) as a content block; small pictures are enlarged."""
    image = Image.fromarray(picture.numpy())
    way = Image.Resampling.NEAREST if image.width < SHOWN else Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    image.resize((SHOWN, SHOWN), way).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    source = {"type": "base64", "media_type": "image/png", "data": encoded}
    return {"type": "image", "source": source}
