"""The analyst of the paper: a language model that sees each mistake with its map."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from ..env import RUNS
from ..plots import overlay, to_rgb
from .findings import Evidence, Finding

KEY = "ANTHROPIC_API_KEY"  # the only place the key comes from; it is never stored
SHOWN = 256  # pixels: small images are enlarged to be seen
WAY_ON = "use RuleAnalyst, which needs no service"
LOOK = (
    "An image classifier was shown the first picture, of the class {label}, and said {predicted} ({confidence:.0%} sure). "
    "The second picture shows in colour where it looked. In at most three sentences: what about this picture made it "
    "fail, and did it look at the {label}?"
)
ASK = (
    "A classifier took a picture of the class {label} for {predicted}. What was found: {finding}\n"
    "Write a prompt for an image generator, at most 100 words, for new pictures of the class {label} that are difficult in "
    "the same way. Name the colour of the {label} and the difficulty. Answer with the prompt alone."
)


@dataclass(frozen=True)
class ClaudeAnalyst:
    """Two requests for each mistake: what went wrong, then a prompt for images that would help.

    model: the service's name of a model; limit: how many mistakes, the most confident first;
    price: dollars for a million tokens in and out; most: dollars that may be spent on one call
    of analyse; timeout: seconds for each try; retries: tries after the first; max_tokens: of a
    reply (models that think first need some thousands); cache: a folder
    for replies, so that a rerun sends nothing. The key comes from the environment variable
    ANTHROPIC_API_KEY. base_url: another address of the service.
    """

    model: str = "claude-sonnet-4-6"
    limit: int = 12
    price: tuple[float, float] = (3.0, 15.0)
    most: float = 1.0
    timeout: float = 30.0
    retries: int = 2
    max_tokens: int = 250
    cache: Path = RUNS / "analyst"
    base_url: str | None = None

    def analyse(self, evidence: Evidence) -> list[Finding]:
        """One finding for each of the first `limit` mistakes; those that the service refuses are left out, said aloud.

        Prints an upper bound of the cost before anything is sent. Raises ValueError without a
        mistake or above `most` dollars, RuntimeError without the package anthropic or a key, or
        if the service gave no usable reply at all.
        """
        if not len(evidence.failed):
            raise ValueError(
                "There is no mistake to analyse: give more validation images, or a weaker model."
            )
        chosen = evidence.failed[: self.limit].tolist()
        looks = {i: self._look(evidence, i) for i in chosen}
        todo = [i for i in chosen if self._cached(looks[i]) is None]
        unknown = [
            i for i in chosen if i in todo or self._cached(self._ask(evidence, i, looks[i])) is None
        ]
        client = None
        if unknown:
            client = self._client()
            self._show_cost(len(chosen), len(todo), len(unknown))
        found, problems = [], []
        for i in chosen:
            try:
                text = self._reply(client, looks[i])
                prompt = self._reply(client, self._ask(evidence, i, looks[i]), words=100)
            except _NoReplyError as problem:
                problems.append(str(problem))
                continue
            label, other = int(evidence.labels[i]), int(evidence.predicted[i])
            found.append(Finding(label, other, (i,), text, prompt))
        if problems:
            print(f"{len(problems)} of {len(chosen)} mistakes have no finding: {problems[0]}")
        if not found:
            raise RuntimeError(
                f"The service gave no usable reply ({problems[0]}): try later, or {WAY_ON}."
            )
        return found

    # ------------------------------------------------------------ requests

    def _look(self, evidence: Evidence, i: int) -> list[dict]:
        image = evidence.images[i]
        painted = torch.from_numpy(overlay(image, evidence.maps[i]) * 255).round().to(torch.uint8)
        pictures = [torch.from_numpy(to_rgb(image) * 255).round().to(torch.uint8), painted]
        words = LOOK.format(confidence=float(evidence.confidence[i]), **self._names(evidence, i))
        return [*(_png(picture) for picture in pictures), {"type": "text", "text": words}]

    def _ask(self, evidence: Evidence, i: int, look: list[dict]) -> list[dict]:
        """The second request; its words hold the first one's reply."""
        finding = self._cached(look) or ""
        return [{"type": "text", "text": ASK.format(finding=finding, **self._names(evidence, i))}]

    @staticmethod
    def _names(evidence: Evidence, i: int) -> dict[str, str]:
        return {
            "label": evidence.classes[evidence.labels[i]],
            "predicted": evidence.classes[evidence.predicted[i]],
        }

    def _file(self, content: list[dict]) -> Path:
        said = json.dumps([self.model, self.max_tokens, content], sort_keys=True)
        return Path(self.cache) / f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.json"

    def _cached(self, content: list[dict]) -> str | None:
        try:
            return json.loads(self._file(content).read_text("utf-8"))["reply"]
        except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: ask again
            return None

    def _client(self):
        try:
            import anthropic
        except ImportError:
            raise RuntimeError(
                f"The package anthropic is not installed: run pip install anthropic, or {WAY_ON}."
            ) from None
        key = os.environ.get(KEY, "").strip()
        if not key:
            raise RuntimeError(
                f"There is no key in the environment variable {KEY}: set it, or {WAY_ON}."
            )
        options = {} if self.base_url is None else {"base_url": self.base_url}
        return anthropic.Anthropic(
            api_key=key, timeout=self.timeout, max_retries=self.retries, **options
        )

    def _show_cost(self, mistakes: int, looks: int, asks: int) -> None:
        """Print an upper bound of the cost of looks + asks requests; ValueError above `most` dollars."""
        picture = math.ceil(SHOWN * SHOWN / 750)  # tokens: the service's rule for images
        tokens_in = looks * (2 * picture + 200) + asks * (200 + self.max_tokens)
        tokens_out = (looks + asks) * self.max_tokens
        dollars = (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6
        worst = dollars * (self.retries + 1)
        print(
            f"{self.model}: {looks + asks} requests about {mistakes} mistakes, at most about {tokens_in:,} tokens in and "
            f"{tokens_out:,} out: {dollars:.3f} dollars at {self.price[0]:g} and {self.price[1]:g} a million, "
            f"and {worst:.3f} if every reply has to be asked for {self.retries + 1} times."
        )
        if worst > self.most:
            raise ValueError(
                f"This may cost {worst:.2f} dollars, more than the {self.most:.2f} allowed: lower limit or raise most."
            )

    def _reply(self, client, content: list[dict], words: int = 0) -> str:
        """The text of a reply, from the cache or the service; an unusable one is asked for again."""
        known = self._cached(content)
        if known is not None:
            return known
        import anthropic

        key = os.environ.get(KEY, "").strip()
        problem = "an empty reply"
        for _ in range(self.retries + 1):
            try:
                message = client.messages.create(
                    model=self.model,
                    max_tokens=self.max_tokens,
                    messages=[{"role": "user", "content": content}],
                )
                if message.stop_reason == "refusal":
                    raise _NoReplyError("the service declined to answer")
                text = " ".join(b.text for b in message.content if b.type == "text").strip()
            except anthropic.APITimeoutError:
                raise _NoReplyError(f"no answer within {self.timeout:g} seconds") from None
            except anthropic.APIConnectionError:
                raise _NoReplyError("the service cannot be reached") from None
            except (
                anthropic.APIStatusError
            ) as error:  # its words may quote the request: keep the number only
                raise _NoReplyError(
                    f"the service answers with the error {error.status_code}"
                ) from None
            except (anthropic.APIError, ValueError, TypeError, AttributeError):
                problem = "a reply that is not in the agreed form"
                continue
            if not text:
                continue
            if words and len(text.split()) > words:
                problem = f"a prompt of more than {words} words"
                continue
            text = text.replace(key, "***")  # a service that echoes must not put the key on disk
            file = self._file(content)
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps({"model": self.model, "reply": text}), "utf-8")
            part.replace(file)
            return text
        raise _NoReplyError(problem)


class _NoReplyError(Exception):
    """Why one request gave nothing usable, in words without a verb's end."""


def _png(picture: torch.Tensor) -> dict:
    """uint8 (H, W, 3) as a content block; small pictures are enlarged."""
    image = Image.fromarray(picture.numpy())
    image = image.resize(
        (SHOWN, SHOWN),
        Image.Resampling.NEAREST if image.width < SHOWN else Image.Resampling.LANCZOS,
    )
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": encoded},
    }
