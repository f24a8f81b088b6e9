"""What the study of pretraining bias claims, beside what was measured."""

from __future__ import annotations

from .claims import (
    AGREEMENT,
    EXCLUDED,
    MISSING,
    OPEN,
    SAME,
    UNKNOWN,
    UNTESTABLE,
    Claim,
    Numbers,
    Setting,
    if_testable,
)

GAP = 0.05  # accuracies closer than this count as equal
VISIBLE = 0.1  # a difference of late-block scores that a reader sees, as in notebook 10


def recognised(n: Numbers, key: str) -> str:
    """The share of fine-tunings whose initialisation is recognised from some numbers."""
    return n.text(AGREEMENT, f"told.{key}.share", "{:.0%}")


def _told_apart(n: Numbers, run: Setting) -> str:
    """By the rule of notebook 10."""
    share, p = n.get(AGREEMENT, "told.iav.share"), n.get(AGREEMENT, "told.iav.p")
    if share is None or p is None:
        return UNKNOWN
    if p > 0.05:
        return OPEN if (n.get(AGREEMENT, "study.smallest_p") or 0) > 0.05 else EXCLUDED
    rivals = ("entropy", "robustness", "accuracy", "shuffled")
    if any((n.get(AGREEMENT, f"told.{key}.share") or 0) >= share for key in rivals):
        return OPEN if run.large else EXCLUDED
    return SAME


def _ranges(n: Numbers) -> str:
    ends = n.ends(AGREEMENT, "vit.icc_within_blocks")
    if ends is None:
        return UNKNOWN
    return SAME if ends.low > 0.5 else EXCLUDED if ends.high < 0.5 else OPEN


def _global(n: Numbers) -> str:
    ends = n.ends(AGREEMENT, "vit.own_and_other_correlation")
    distance = n.get(AGREEMENT, "vit.own_and_other_distance")
    if ends is None or distance is None:
        return UNKNOWN
    if ends.low > 0.9 and distance < 0.05:
        return SAME
    return EXCLUDED if ends.high < 0.9 or distance > 0.1 else OPEN


def late_blocks(n: Numbers) -> dict[str, dict[str, float]]:
    """{"images alone" or "labels": {initialisation: late-block IA-score}}."""
    kinds = {
        "images alone": ("contrast", "mae", "dino"),
        "labels": ("imagenet", "in21k", "in1k", "deit"),
    }
    level = {
        name.removesuffix(".ia_late_mean"): value
        for name, value in n.starting(AGREEMENT, _compared(n)).items()
        if name.endswith(".ia_late_mean")
    }
    return {kind: {k: level[k] for k in names if k in level} for kind, names in kinds.items()}


def _compared(n: Numbers) -> str:
    """Which runs are compared: those of the study at equal accuracy, or notebook 10's own."""
    return "vit." if n.get(AGREEMENT, "matched.accuracy_gap", True) is None else "matched."


def _accuracy_gap(n: Numbers) -> str:
    return "study.accuracy_gap" if _compared(n) == "vit." else "matched.accuracy_gap"


def _late(n: Numbers) -> str:
    groups, gap = late_blocks(n), n.get(AGREEMENT, _accuracy_gap(n))
    ends = n.ends(AGREEMENT, "matched.late_gap", optional=True)
    if gap is not None and gap <= GAP and ends is not None:
        if ends.low > 0 and ends.mean >= VISIBLE:
            return SAME
        return EXCLUDED if ends.high < VISIBLE else OPEN
    if gap is None or not all(groups.values()):
        return UNKNOWN if gap is None else UNTESTABLE
    apart = min(groups["images alone"].values()) - max(groups["labels"].values())
    return if_testable(gap <= GAP, SAME if apart > 0 else EXCLUDED)


def claims(n: Numbers, run: Setting) -> list[Claim]:
    """All rows of the study."""
    late = "; ".join(
        f"{kind}: " + (", ".join(f"{k} {v:.2f}" for k, v in rows.items()) or MISSING)
        for kind, rows in late_blocks(n).items()
    )
    return [
        Claim(
            "the IAV separates types of pretraining; generalisation, robustness, entropy do not",
            "yes",
            f"initialisation recognised: IAV {recognised(n, 'iav')}, accuracy "
            f"{recognised(n, 'accuracy')}, robustness {recognised(n, 'robustness')}, entropy "
            f"{recognised(n, 'entropy')}",
            "more runs than any other, p below 0.05",
            _told_apart(n, run),
            f"{n.text(AGREEMENT, 'study.runs', '{:.0f}')} fine-tunings; IAV with another image's "
            f"attention: {recognised(n, 'shuffled')}",
        ),
        Claim(
            "late blocks agree more without labels than with",
            "0.61 to 0.67 against 0.25 to 0.32",
            late,
            f"+{VISIBLE}, at accuracies at most {GAP} apart",
            _late(n),
            "accuracies after fine-tuning differ by "
            f"{n.text(AGREEMENT, _accuracy_gap(n), '{:.2f}')}; the published types are apart "
            f"from block {n.text(AGREEMENT, 'published.first_block_apart', '{:.0f}')} on",
        ),
        *_heads(n, run),
    ]


def _heads(n: Numbers, run: Setting) -> list[Claim]:
    return [
        Claim(
            "each head keeps a range",
            "yes",
            n.interval(AGREEMENT, "vit.icc_within_blocks", "{:.2f}"),
            "0.5 of the variance",
            _ranges(n),
            "share of the variance between heads of one block; over all heads "
            f"{n.interval(AGREEMENT, 'vit.icc', '{:.2f}')}, without block 1 "
            f"{n.text(AGREEMENT, 'vit.icc_without_block_1', '{:.2f}')}",
        ),
        Claim(
            "the IAV is somehow global, a property of the model and not of the input",
            "yes",
            n.interval(AGREEMENT, "vit.own_and_other_correlation"),
            "correlation 0.9, distance 0.05",
            _global(n),
            "IAV of the right image and of another one; mean distance "
            f"{n.text(AGREEMENT, 'vit.own_and_other_distance')}",
        ),
        Claim(
            "DINO is best under shifts, ImageNet-21k about as good",
            "yes",
            " / ".join(
                n.text(AGREEMENT, f"vit.{k}.corrupted_accuracy", optional=True)
                for k in ("dino", "in21k")
            )
            if run.large
            else "–",
            "–",
            UNTESTABLE,
            "needs the published weights and shifted data sets; notebook 10 damages images instead",
        ),
    ]
