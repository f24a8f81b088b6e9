"""What the study of the feedback loop claims, beside what was measured."""

from __future__ import annotations

from .claims import (
    EXCLUDED,
    LOOP,
    OPEN,
    SAME,
    SLIM,
    UNKNOWN,
    Claim,
    Numbers,
    Setting,
    accuracy,
    by_size,
)


def _looking(n: Numbers) -> str:
    """Whether the loop beats the same loop without looking, by the published gain."""
    arms = ("other_maps", "uniform_maps")
    verdicts = {by_size(n.ends(LOOP, f"both.minus_{arm}"), 0.025, 0.0125) for arm in arms}
    if UNKNOWN in verdicts:
        return UNKNOWN
    if n.get(LOOP, "looking_of_published_size_excluded"):
        return EXCLUDED
    return verdicts.pop() if verdicts == {SAME} else OPEN


def claims(n: Numbers, run: Setting) -> list[Claim]:
    """All rows of the study."""
    level = n.text(LOOP, "baseline.accuracy.mean")
    seeds = f"{n.text(LOOP, 'seeds', '{:.0f}')} seeds; other images, model and generator"
    arms = (
        ("generated", "training on generated images alone hurts", -0.026),
        ("both", "generated and training images together help", 0.025),
        ("lora", "LoRA on both hurts", -0.019),
    )
    rows = [
        Claim(
            words,
            f"{gain:+.3f}",
            n.interval(LOOP, f"{arm}.minus_baseline", "{:+.3f}"),
            f"{gain / 2:+.4f}, half of it",
            by_size(n.ends(LOOP, f"{arm}.minus_baseline"), gain, abs(gain) / 2),
            seeds,
        )
        for arm, words, gain in arms
    ]
    looking = [
        n.interval(LOOP, f"both.minus_{arm}", "{:+.3f}") for arm in ("other_maps", "uniform_maps")
    ]
    return [
        accuracy(
            n,
            "accuracy of the baseline, cats and dogs",
            0.953,
            (LOOP, "baseline.accuracy"),
            run.large,
            "other images of cats and dogs" if run.large else SLIM,
        ),
        *rows,
        Claim(
            "explainability is what helps",
            "+0.025, without a control",
            f"another image's maps: {looking[0]}; uniform maps: {looking[1]}",
            "+0.025, or half of it to be the same",
            _looking(n),
            f"the loop minus the same loop without looking, baseline {level}; minus the best "
            f"control: {n.interval(LOOP, 'both.minus_best_control', '{:+.3f}')}",
        ),
    ]
