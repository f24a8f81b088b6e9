"""Published claims beside measured numbers: reading the numbers by name, and four verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from html import escape
from typing import Any

from .. import stats
from ..stats import Interval

SAME, EXCLUDED, OPEN = "same", "excluded", "inconclusive"
UNTESTABLE, UNKNOWN = "not testable here", "not measured"
MISSING = "not measured in this run"

EVALUATION, GRADCAM, RELEVANCE = "04_evaluation", "05_gradcam", "06_lrp"
GRADIENTS, SHAPLEY, ATTENTION = "07_integrated_gradients", "08_shapley", "09_attention"
AGREEMENT, TRUST, LOOP, AUDIT = "10_iav", "11_trust", "12_explain_to_improve", "13_audit"
FALL = 0.05  # of the probability: a smaller fall does not count
SLIM = "slim models with course weights can neither reach nor refute the published level"
PICTURES = "in pictures"


def in_words(value: float, form: str = "{:.3f}") -> str:
    """A number in words, by a format such as "{:+.3f}"; one that rounds to zero has no sign."""
    text, zero = form.format(value), form.format(0.0).lstrip("+")
    return zero if text.lstrip("+-") == zero else text


class Numbers:
    """results.json read by notebook and name.

    A name that a notebook should have saved and did not, although it was run, is remembered in
    `misspelt`: such a name is spelt wrong here or was renamed there. optional=True is for names
    that a notebook saves only with some data or profiles.
    """

    def __init__(self, results: Mapping[str, Any]):
        self.saved = {stem: numbers for stem, numbers in results.items() if stem != "meta"}
        self.misspelt: set[str] = set()

    def get(self, stem: str, name: str, optional: bool = False) -> float | None:
        """A saved number, or None."""
        numbers = self.saved.get(stem)
        if numbers is not None and name not in numbers and not optional:
            self.misspelt.add(f"{stem}: {name}")
        return (numbers or {}).get(name)

    def text(self, stem: str, name: str, form: str = "{:.3f}", optional: bool = False) -> str:
        """The same in words, MISSING without it."""
        value = self.get(stem, name, optional)
        return MISSING if value is None else in_words(value, form)

    def ends(self, stem: str, name: str, sign: int = 1, optional: bool = False) -> Interval | None:
        """A saved interval: name, name_low, name_high, or name.mean, name.low, name.high.

        sign=-1 turns a difference round. None if it was not saved.
        """
        dotted = f"{name}.low" in self.saved.get(stem, {})
        names = (f"{name}.mean", f"{name}.low", f"{name}.high")
        names = names if dotted else (name, f"{name}_low", f"{name}_high")
        value, low, high = (self.get(stem, key, optional) for key in names)
        if value is None or low is None or high is None:
            return None
        low, high = sorted((sign * low, sign * high))
        return Interval(sign * value, low, high)

    def interval(
        self, stem: str, name: str, form: str = "{:.3f}", sign: int = 1, optional: bool = False
    ) -> str:
        """value [low, high] in words; MISSING without it."""
        ends = self.ends(stem, name, sign, optional)
        if ends is None:
            return MISSING
        return "{} [{}, {}]".format(*(in_words(end, form) for end in ends))

    def starting(self, stem: str, prefix: str) -> dict[str, float]:
        """The numbers whose names start with prefix, under what follows it."""
        numbers = self.saved.get(stem, {})
        return {n.removeprefix(prefix): v for n, v in numbers.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class Setting:
    """What was run, as far as it decides which claims can be tested."""

    profile: str
    data: str

    @property
    def large(self) -> bool:
        """Whether the models are the published ones."""
        return self.profile in ("paper", "full")

    @property
    def cifar(self) -> bool:
        """Whether the images are CIFAR-10, of which the class claims are."""
        return self.data.startswith("CIFAR-10")

    def why(self, otherwise: str = "the published recipe on another draw of images") -> str:
        """Why a level may differ."""
        if not self.large:
            return SLIM
        return otherwise if self.cifar else "data other than CIFAR-10"


# ---------------------------------------------------------------- verdicts


def by_size(ends: Interval | None, published: float, size: float) -> str:
    """Whether a difference has the published sign and reaches a size that counts."""
    return UNKNOWN if ends is None else stats.verdict(ends, published, size)


def by_level(ends: Interval | None, published: float, tolerance: float = 0.01) -> str:
    """Whether an interval, widened by a difference that does not count, holds a published level."""
    if ends is None:
        return UNKNOWN
    return SAME if ends.low - tolerance <= published <= ends.high + tolerance else EXCLUDED


def by_bars(value: float | None, bar: float, margin: float) -> str:
    """Whether a number without an interval lies above a bar by a margin, or below it by as much."""
    if value is None:
        return UNKNOWN
    return SAME if value >= bar + margin else EXCLUDED if value < bar - margin else OPEN


def if_testable(testable: bool, verdict: str) -> str:
    """The verdict where these models and data can test the claim at all."""
    return verdict if testable or verdict == UNKNOWN else UNTESTABLE


@dataclass(frozen=True)
class Claim:
    """A row of the table of claims, all in words."""

    claim: str
    published: str
    here: str
    size: str  # the effect that counts
    verdict: str
    how: str  # measured how, or why it cannot be tested


def accuracy(
    n: Numbers, claim: str, published: float, saved: tuple[str, str], testable: bool, how: str
) -> Claim:
    """The row of an accuracy; saved: the notebook and the name of ours."""
    verdict = if_testable(testable, by_level(n.ends(*saved), published))
    return Claim(claim, f"{published}", n.interval(*saved), "0.01", verdict, how)


HEAD = ("claim", "published", "here", "size that counts", "verdict", "measured how, or why not")


def table(studies: Mapping[str, Iterable[Claim]], caption: str) -> str:
    """All claims as an HTML table, a heading for each study.

    Each cell names its column, so that a narrow screen can show a claim as a list.
    """
    head = "".join(f"<th>{words}</th>" for words in HEAD)
    body = ""
    for study, rows in studies.items():
        body += f'<tr><th colspan="{len(HEAD)}">{escape(study)}</th></tr>'
        for row in rows:
            cells = zip(HEAD, astuple(row), strict=True)
            body += "<tr>" + "".join(_cell(*cell) for cell in cells) + "</tr>"
    return (
        f'<table class="claims"><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _cell(head: str, words: str) -> str:
    return f'<td data-head="{head}">{escape(words)}</td>'
