"""The audit itself: every question asked of every method that fits, within a budget of minutes.

A few images of each part come first. They tell what an image costs and how much the scores differ
between images; from that follows how many images each question needs, and how many it can have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .. import env
from ..train import processes
from . import planted
from .answers import MARGIN, MOST, Part, deviation, enough_images, judged
from .catalogue import QUESTIONS
from .parts import USUAL_METHODS, extended, fitting, maps_of, refusal
from .questions import LEAST
from .record import Record
from .subject import Subject

PILOT, BATCH = 2, 16  # images of each part before the plan is made; images between two writes


class Battery:
    """One audit under way: its parts, who measures which, and how far the budget reaches."""

    def __init__(
        self,
        subject: Subject,
        out: Path,
        methods: Sequence[str],
        questions: Sequence[str],
        minutes: float,
        chunk: int | None,
    ) -> None:
        self.subject, self.minutes, self.questions = subject, minutes, list(questions)
        self.reasons = fitting(subject, methods)
        self.maps = {
            m: maps_of(subject, m, chunk) for m, reason in self.reasons.items() if not reason
        }
        if not self.maps:
            raise ValueError(f"No method explains this model: {next(iter(self.reasons.values()))}")
        self.asked = [f"{q}.{m}" for q in self.questions for m in self.maps]
        self.record = Record(subject, out)
        self.budget = f"{minutes:g} minutes for {' '.join(self.asked)}"

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return 60 * self.minutes - self.record.seconds()

    def extend(self, part: str, n: int) -> None:
        """Measure a part's images up to the n-th, batch by batch, each on disk at once."""
        name, method = part.split(".")
        reason = refusal(self.subject, QUESTIONS[name], method)
        kept = self.record.parts.get(part, {"refused": reason} if reason else {})
        for stop in [*range(len(kept.get("values", ())) + BATCH, n, BATCH), n]:
            kept = extended(kept, QUESTIONS[name], self.maps[method], stop)
            self.record.parts[part] = kept
            self.record.write()

    def mine(self, name: str) -> list[str]:
        """This process's parts of a question; the others have the rest."""
        parts = [part for part in self.asked if part.split(".")[0] == name]
        return parts[processes.rank() :: processes.size()]

    def of(self, name: str) -> list[Part]:
        """The measured parts of a question."""
        parts = [self.record.parts.get(f"{name}.{method}", {}) for method in self.maps]
        return [part for part in parts if "values" in part]

    def wanted(self, name: str) -> int:
        """Images that the power calculation asks for, from the spread in the first few."""
        first = [
            {**p, "values": p["values"][:PILOT]}
            | {"references": {k: v[:PILOT] for k, v in p["references"].items()}}
            for p in self.of(name)
        ]
        n = enough_images(MARGIN, deviation(first), len(self.asked))
        return min(max(LEAST, n), MOST)

    def cost(self, name: str) -> float:
        """Seconds for one more image of a question, all methods together."""
        each = [part["seconds"] / len(part["values"]) for part in self.of(name)]
        return max(1e-6, sum(each) / processes.size())

    def share(self, name: str, others: int) -> int:
        """How many images a question gets, with `others` still to come: decided once, and kept.

        As many as it wants, and no more than its share of the time that is left.
        """
        decided = f"{name}: {self.budget}"
        if decided not in self.record.images:
            affordable = PILOT + int(self.left() / (others + 1) / self.cost(name))
            enough = (LEAST - PILOT) * self.cost(name) < self.left() / 2  # for any verdict at all
            least = LEAST if enough else PILOT
            n = min(self.wanted(name), max(least, affordable), len(self.subject.images))
            self.record.images[decided] = n
            self.record.write()
        return self.record.images[decided]

    def full(self) -> float:
        """Minutes that all questions would take with all images that they want."""
        n = len(self.subject.images)
        return sum(min(self.wanted(q), n) * self.cost(q) for q in self.questions if self.of(q)) / 60

    def ask(self) -> None:
        """The quick questions first, so that a small budget decides some and not none."""
        quick, slow = (
            [q for q in self.questions if QUESTIONS[q].costly == c] for c in (False, True)
        )
        self._first(quick)
        self._rest(quick, len(slow))
        self._first(slow)
        self._rest(slow, 0)

    def _first(self, questions: list[str]) -> None:
        """A few images of every part, as long as there is time."""
        quiet = processes.rank() > 0
        with tqdm(total=len(questions) * len(self.maps), unit="part", disable=quiet) as bar:
            bar.set_description("first images")
            for name in questions:
                for part in self.mine(name):
                    if self.left() > 0:
                        self.extend(part, PILOT)
                    bar.update(processes.size())
                self.record.read()
        if not quiet and questions:
            print(
                f"{self.record.seconds() / 60:.1f} of {self.minutes:g} minutes used; enough images "
                f"for all questions begun would take {self.full():.1f}."
            )

    def _rest(self, questions: list[str], later: int) -> None:
        """As many images of each as it wants and the budget allows; `later` questions follow."""
        able = sorted(
            (q for q in questions if self.of(q)), key=lambda q: self.wanted(q) * self.cost(q)
        )
        with tqdm(able, unit="question", desc="all images", disable=processes.rank() > 0) as bar:
            for place, name in enumerate(bar):
                bar.set_postfix_str(QUESTIONS[name].name)
                n = self.share(name, len(able) - place - 1 + later)
                for part in self.mine(name):
                    if part in self.record.parts:
                        self.extend(part, n)
                self.record.read()

    def parts(self) -> dict[str, Part]:
        """All parts; those for which there was no time say how much they would need."""
        parts = {}
        for name in self.asked:
            part = self.record.parts.get(
                name, {"refused": f"the budget of {self.minutes:g} minutes did not reach it"}
            )
            n, question = len(part.get("values", ())), name.split(".")[0]
            if "values" in part and n < LEAST:
                wanted, there = self.wanted(question), len(self.subject.images)
                need = min(wanted, there) * self.cost(question) / 60
                part = {
                    "refused": f"there was time for {n} of the {min(wanted, there)} images that it "
                    f"needs ({need:.1f} minutes for this question)"
                }
                if wanted > there:
                    part["refused"] += f", and to be sure it would need {wanted} images"
            parts[name] = part
        return parts


def run(
    subject: Subject,
    out: Path,
    methods: Sequence[str] = USUAL_METHODS,
    minutes: float = 10.0,
    chunk: int | None = None,
    questions: Sequence[str] = tuple(QUESTIONS),
    plant: bool = False,
) -> dict[str, Any]:
    """Ask every question of every method that fits; the answers, also in out/audit.json.

    Goes on where an earlier call with the same model and images stopped; more minutes add images
    to what is there. chunk: images at once; it changes nothing in the results. plant: also the
    test with a planted shortcut, which trains models for about as many minutes again. Several
    processes (accelerate) share the work. Raises ValueError where no method fits the model.
    """
    battery = Battery(subject, out, methods, questions, minutes, chunk)
    battery.ask()
    answers = judged(battery.parts())
    for name, part in answers.items():
        if "n" in part:
            part["wanted"] = battery.wanted(name.split(".")[0])
    report = {
        "model": getattr(subject.model, "arch", type(subject.model).__name__),
        "provenance": getattr(subject.model, "provenance", "as given"),
        "source": subject.source,
        "images": len(subject.images),
        "outputs": subject.outputs,
        "notes": list(subject.notes),
        "quality": subject.quality(),
        "left_out": {name: reason for name, reason in battery.reasons.items() if reason},
        "parts": answers,
        "comparisons": sum("p" in part for part in answers.values()),
        "minutes": {
            "budget": minutes,
            "used": round(battery.record.seconds() / 60, 2),
            "full": round(battery.full(), 2),
        },
        "versions": env.versions(),
        "device": env.device_name(),
    }
    if plant:
        report["shortcut"] = planted.ask(subject, battery.maps, battery.record, minutes)
    if processes.rank() == 0:
        env.write(out / "audit.json", json.dumps(report, indent=1) + "\n")
    return report
