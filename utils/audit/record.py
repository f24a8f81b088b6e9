"""What was measured so far, on disk after every batch, so that an audit goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .. import env
from ..train import processes
from .subject import Subject

VERSION = 3  # raise it when a question changes its meaning: old numbers are then left alone


class Record:
    """Parts by "question.method" and how many images each question gets.

    Each process writes a file of its own, out/parts-0.json and so on, and reads all of them.
    """

    def __init__(self, subject: Subject, out: Path) -> None:
        digest = hashlib.sha256(subject.images.numpy().tobytes())
        digest.update(subject.logits.numpy().tobytes())
        digest.update(f"{VERSION} {subject.source}".encode())
        self.key, self.out = digest.hexdigest()[:16], out
        self.parts: dict[str, dict[str, Any]] = {}
        self.images: dict[str, int] = {}  # "budget question" -> how many
        self.read()

    def read(self) -> None:
        """Take over what all processes have written; wait until they have."""
        processes.wait()
        for file in sorted(self.out.glob("parts-*.json")):
            kept = json.loads(file.read_text("utf-8"))
            if kept["key"] != self.key:
                continue
            self.images |= kept["images"]
            for name, part in kept["parts"].items():
                mine = self.parts.get(name, {})
                if len(part.get("values", ())) >= len(mine.get("values", ())):
                    self.parts[name] = part
        processes.wait()  # nobody writes while others read

    def write(self) -> None:
        """Everything known here, to this process's file."""
        kept = {"key": self.key, "images": self.images, "parts": self.parts}
        env.write(self.out / f"parts-{processes.rank()}.json", json.dumps(kept))

    def seconds(self, question: str = "") -> float:
        """How long the parts (of a question) took, shared out among the processes."""
        times = [
            part.get("seconds", 0.0)
            for name, part in self.parts.items()
            if not question or name.split(".")[0] == question
        ]
        return sum(times) / processes.size()
