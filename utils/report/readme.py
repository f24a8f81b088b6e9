"""README.md's moving parts: its addresses, and the table of results, both written by `make notebooks`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import env
from . import notebooks
from .claims import in_words
from .results import weights_used

MARKS = "<!-- results -->", "<!-- end of results -->"
# what was published, where ours stands in results.json, and what must be known to compare
ROWS = (
    ("ResNet34, accuracy", "0.843", "04_evaluation", ("resnet.accuracy",)),
    ("ViT, accuracy", "0.977", "04_evaluation", ("vit.accuracy",)),
    (
        "ResNet34 / ViT, ROC-AUC",
        "0.986 / 0.9996",
        "04_evaluation",
        ("resnet.roc_auc", "vit.roc_auc"),
    ),
    (
        "share of runs whose pretraining is recognised: from IAV / attention entropy / robustness",
        "yes / no / no",
        "10_iav",
        ("told.iav.share", "told.entropy.share", "told.robustness.share"),
    ),
    (
        "IAV with own and with another image's attention, correlation over heads",
        "“somehow global”",
        "10_iav",
        ("vit.own_and_other_correlation",),
    ),
    (
        "feedback loop, cats and dogs: accuracy of the baseline",
        "0.953",
        "12_explain_to_improve",
        ("baseline.accuracy.mean",),
    ),
    (
        "generated and training images minus baseline",
        "+0.025",
        "12_explain_to_improve",
        ("both.minus_baseline.mean",),
    ),
    (
        "the same minus the same loop with another image's maps",
        "no such control",
        "12_explain_to_improve",
        ("both.minus_other_maps.mean",),
    ),
)


def results_table(results: Mapping[str, Any]) -> str:
    """Published numbers beside those of results.json, as Markdown; what was not measured is a dash."""

    def ours(stem: str, names: tuple[str, ...]) -> str:
        saved = results.get(stem, {})
        form = "{:+.3f}" if "minus" in names[0] else "{:.3f}"
        words = [in_words(saved[name], form) if name in saved else "–" for name in names]
        dotted = names[0].endswith(".mean")
        stub = names[0].removesuffix("mean") if dotted else f"{names[0]}_"
        ends = [saved.get(f"{stub}{end}") for end in ("low", "high")]
        known = [in_words(end, form) for end in ends if end is not None]
        return " / ".join(words) + (f" [{', '.join(known)}]" if len(known) == 2 else "")

    meta = results.get("meta", {})
    head = f"| | published | here (`{meta.get('profile', '?')}`) |\n|---|---|---|\n"
    rows = "\n".join(
        f"| {what} | {theirs} | {ours(stem, names)} |" for what, theirs, stem, names in ROWS
    )
    note = (
        f"Here: profile `{meta.get('profile', '?')}`, {meta.get('data', '?')}; 95 % bootstrap "
        "intervals in brackets. Compare directions, not digits, where the published models are "
        "large ones with ImageNet weights. The report has all claims with their verdicts. Weights, "
        "and the notebooks that use them:"
    )
    weights = "\n".join(
        f"- {arch} ({', '.join(stem[:2] for stem in stems)}): {words}"
        for (arch, words), stems in weights_used(results).items()
    )
    return f"{head}{rows}\n\n{note}\n\n{weights}"


def write(results: Mapping[str, Any], file: Path = env.ROOT / "README.md") -> None:
    """Put the table of results between its marks. Raises ValueError without the marks."""
    text = file.read_text("utf-8")
    begin, end = MARKS
    if begin not in text or end not in text:
        raise ValueError(
            f"{file.name} has no place for the results: put {begin} and {end} on lines of their own."
        )
    table = f"{begin}\n{results_table(results)}\n{end}"
    text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: table, text, flags=re.DOTALL)
    env.write(file, text)


def addressed(text: str, address: str) -> str:
    """README.md with the course's public address in it, or without any."""

    def row(match: re.Match) -> str:
        mark = notebooks.badge(match[2], address)
        return f"{match[1]} {mark} |" if mark else match[1]

    text = re.sub(
        r"^(\| \[(\d\d_\w+)\]\(notebooks/\2\.ipynb\) \|[^|\n]*\|)[^\n]*$", row, text, flags=re.M
    )
    badges = bool(notebooks.badge("00", address))
    head = "| notebook | asks |" + (" Colab |" if badges else "")
    rule = "|---|---|" + ("---|" if badges else "")
    text = re.sub(r"^\| notebook \| asks \|.*\n\|[-|]+$", f"{head}\n{rule}", text, flags=re.M)
    text = re.sub(r"^  url    = \{.*\},\n", "", text, flags=re.M)
    text = re.sub(r" or `pip install git\+[^`]*`", "", text)
    if address:
        text = re.sub(r"^(  year   = .*\n)", rf"\g<1>  url    = {{{address}}},\n", text, flags=re.M)
        text = text.replace("`pip install .`", f"`pip install .` or `pip install git+{address}`", 1)
    return text
