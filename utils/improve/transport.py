"""Requests to a language model's service: the key, the cost, kept replies, and trying again."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..env import RUNS, write

KEY = "ANTHROPIC_API_KEY"  # the only place the key comes from; it is never stored
WAY_ON = "use RuleAnalyst, which needs no service"


class NoReplyError(Exception):
    """Why a request gave nothing usable, as words that fit into a sentence."""


@dataclass(frozen=True)
class Transport:
    """Sends requests to the service and keeps the replies.

    model: the service's name of a model; price: dollars for a million tokens in and out; most:
    dollars that may be spent at once; timeout: seconds for each try; retries: tries after the
    first; max_tokens: of a reply (models that think first need some thousands); cache: a folder
    for replies, so that a rerun sends nothing. The key comes from the environment variable
    ANTHROPIC_API_KEY. base_url: another address of the service.
    """

    model: str = "claude-sonnet-4-6"
    price: tuple[float, float] = (3.0, 15.0)
    most: float = 1.0
    timeout: float = 30.0
    retries: int = 2
    max_tokens: int = 250
    cache: Path = RUNS / "analyst"
    base_url: str | None = None

    def _file(self, content: list[dict]) -> Path:
        request = json.dumps([self.model, self.max_tokens, content], sort_keys=True)
        return Path(self.cache) / f"{hashlib.sha256(request.encode()).hexdigest()[:24]}.json"

    def cached(self, content: list[dict]) -> str | None:
        """The kept reply to a request, or None."""
        try:
            return json.loads(self._file(content).read_text("utf-8"))["reply"]
        except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: request it again
            return None

    def client(self) -> Any:
        """The service's client. Raises RuntimeError without the package anthropic or a key."""
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

    def show_cost(self, requests: int, tokens_in: int, about: str) -> None:
        """Print an upper bound of the cost of `requests`; ValueError above `most` dollars."""
        tokens_in, tokens_out = tokens_in, requests * self.max_tokens
        dollars = (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6
        worst = dollars * (self.retries + 1)
        print(
            f"{self.model}: {requests} requests about {about}, at most about {tokens_in:,} tokens "
            f"in and {tokens_out:,} out: {dollars:.3f} dollars at {self.price[0]:g} and "
            f"{self.price[1]:g} a million, and {worst:.3f} if every reply has to be asked for "
            f"{self.retries + 1} times."
        )
        if worst > self.most:
            raise ValueError(
                f"This may cost {worst:.2f} dollars, more than the {self.most:.2f} allowed: "
                "lower limit or raise most."
            )

    def reply(self, client: Any, content: list[dict], words: int = 0) -> str:
        """The text of a reply, kept or new; an unusable one is requested again.

        words: at most so many, if given. Raises NoReplyError.
        """
        known = self.cached(content)
        if known is not None:
            return known
        problem = "an empty reply"
        for _ in range(self.retries + 1):
            text, problem = self._try(client, content, problem)
            if text and words and len(text.split()) > words:
                text, problem = "", f"a prompt of more than {words} words"
            if text:
                key = os.environ.get(KEY, "").strip()
                text = text.replace(key, "***")  # a service may echo it: never onto the disk
                kept = json.dumps({"model": self.model, "reply": text})
                write(self._file(content), kept)
                return text
        raise NoReplyError(problem)

    def _try(self, client: Any, content: list[dict], problem: str) -> tuple[str, str]:
        """One request: (its text, or nothing, and the problem with it)."""
        import anthropic

        try:
            message = client.messages.create(
                model=self.model,
                max_tokens=self.max_tokens,
                messages=[{"role": "user", "content": content}],
            )
            if message.stop_reason == "refusal":
                raise NoReplyError("the service declined to answer")
            return " ".join(b.text for b in message.content if b.type == "text").strip(), problem
        except anthropic.APITimeoutError:
            raise NoReplyError(f"no answer within {self.timeout:g} seconds") from None
        except anthropic.APIConnectionError:
            raise NoReplyError("the service cannot be reached") from None
        except anthropic.APIStatusError as error:  # its words may quote the request
            raise NoReplyError(f"the service answers with the error {error.status_code}") from None
        except (anthropic.APIError, ValueError, TypeError, AttributeError):
            return "", "a reply that is not in the agreed form"
