"""From numbers to verdicts: intervals, one correction for all comparisons, and what is recommended.

A part is one question asked of one method: {"values", "bar", "references", "beside", "seconds"}, a
value an image, or {"refused": reason}.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from scipy import stats as tests

from .. import explain, stats
from ..trust import faithfulness
from . import planted
from .catalogue import QUESTIONS
from .questions import LEAST
from .scores import NO_SUM

MOST = 200  # images of a part: more cost time without need
MARGIN = 0.1  # the distance from the size that counts which the images shall suffice to see
Part = dict[str, Any]


def floor(part: Part) -> tuple[str, np.ndarray]:
    """What a map must beat, image by image: the best map without a model, or chance."""
    others = {name: np.array(values) for name, values in part["references"].items()}
    if not others:
        return "", np.broadcast_to(part["bar"], len(part["values"]))
    best = max(others, key=lambda name: others[name].mean())
    return best, others[best]


def deviation(parts: list[Part]) -> float:
    """Standard deviation between images of score - floor, pooled over the methods of a question."""
    variances = [np.var(np.array(p["values"]) - floor(p)[1], ddof=1) for p in parts]
    return float(np.sqrt(np.mean(variances)))


def enough_images(distance: float, sd: float, comparisons: int) -> int:
    """Images that show a distance from the size with 80 % power, corrected for all comparisons."""
    alpha = min(0.05, 2 * 0.05 / max(1, comparisons))  # one-sided, in a two-sided calculation
    return stats.images_needed(distance, max(sd, 0.02), alpha=alpha)


def answer(name: str, part: Part, seed: int = 0) -> dict[str, Any]:
    """One part in numbers: {"n", "score", "floor", "effect", "low", "high", "size", "p", ...}.

    The effect is the mean of score - floor over images; p tests it against the size that counts.
    """
    if "refused" in part:
        return {"refused": part["refused"]}
    size, values, (_, bar) = QUESTIONS[name].size, np.array(part["values"]), floor(part)
    effect = stats.difference_interval(values, bar, seed=seed)
    beyond = values - bar - size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that hardly differ
        p = float(tests.ttest_1samp(beyond, 0, alternative="greater").pvalue)
    if np.ptp(beyond) < 1e-12:
        p = float(beyond.mean() <= 0)
    return {
        "n": len(values),
        "score": float(values.mean()),
        "floor": float(bar.mean()),
        "effect": effect.mean,
        "low": effect.low,
        "high": effect.high,
        "size": size,
        "sd": float(beyond.std(ddof=1)),
        "p": p,
        "references": {k: float(np.mean(v)) for k, v in part["references"].items()},
        "beside": {k: float(np.mean(v)) for k, v in part["beside"].items()},
    }


def unfit(parts: dict[str, Part]) -> list[str]:
    """The methods of a question that random order beats: then its score measures the damage alone."""
    scores = {method: np.array(p["values"]) for method, p in parts.items()}
    n = min((len(v) for v in scores.values()), default=0)
    if n < LEAST:
        return []
    scores = {method: values[:n] for method, values in scores.items()}
    random = next(iter(parts.values()))["references"]["random"][:n]
    return faithfulness.beaten_by_random({**scores, "random": np.array(random)})


def verdicts(answers: dict[str, dict[str, Any]]) -> None:
    """Write "adjusted" (Holm over all parts) and "verdict" into each measured part, in place.

    "yes": the effect is above the size that counts, also after correction; "no": its whole
    interval lies below that size; "cannot be told" otherwise, with the images it would need.
    """
    measured = [part for part in answers.values() if "p" in part]
    adjusted = list(stats.holm([part["p"] for part in measured])) if measured else []
    for part, p in zip(measured, adjusted, strict=True):
        part["adjusted"] = float(p)
        distance = part["effect"] - part["size"]
        if p < 0.05 and distance > 0:
            part["verdict"] = "yes"
        elif part["high"] < part["size"]:
            part["verdict"] = "no"
        else:
            part["verdict"] = "cannot be told"
            if distance and math.isfinite(part["sd"]):
                part["needs"] = enough_images(distance, part["sd"], len(measured))


def judged(parts: dict[str, Part]) -> dict[str, dict[str, Any]]:
    """The answers of all parts, with verdicts; scores that random order beats are refused."""
    answers = {key: answer(key.split(".")[0], part) for key, part in parts.items()}
    for name, question in QUESTIONS.items():
        mine = {k.split(".")[1]: p for k, p in parts.items() if k.split(".")[0] == name}
        measured = {method: p for method, p in mine.items() if "values" in p}
        beaten = unfit(measured) if question.removes else []
        for method in measured if beaten else ():
            titles = " and ".join(explain.METHODS[m].title for m in beaten)
            answers[f"{name}.{method}"] = {
                "refused": f"random order beats {titles}, so that the score measures the damage "
                "done by removing and not the map"
            }
    verdicts(answers)
    return answers


def recommended(report: dict[str, Any]) -> dict[str, str]:
    """{question: a sentence naming the method with the largest effect among those that pass}."""
    sentences = {}
    for name, question in QUESTIONS.items():
        parts = {p.split(".")[1]: v for p, v in report["parts"].items() if p.split(".")[0] == name}
        if parts:
            sentences[question.text] = _sentence(question.unit, parts, report.get("images", 0))
    if "shortcut" in report:
        sentences[planted.QUESTION] = planted.sentence(report["shortcut"])
    return sentences


def _sentence(unit: str, parts: dict[str, dict[str, Any]], there: int) -> str:
    """The question's answer; where nothing can be told, how many images would be needed."""
    measured = {m: v for m, v in parts.items() if "verdict" in v}
    passing = {m: v for m, v in measured.items() if v["verdict"] == "yes"}
    if passing:
        best = max(passing, key=lambda m: passing[m]["effect"])
        part, title = passing[best], explain.METHODS[best].title
        return (
            f"{title}: {part['effect']:z.2f} [{part['low']:z.2f}, {part['high']:z.2f}], {unit}; "
            f"{len(passing)} of {len(measured)} methods pass."
        )
    if not measured:
        reasons = [v["refused"] for v in parts.values()]
        return f"Not tested: {min(reasons, key=lambda r: r == NO_SUM)}."
    unclear = [v for v in measured.values() if v["verdict"] == "cannot be told"]
    if not unclear:
        return f"None: no method of {len(measured)} passes."
    needs = min((v["needs"] for v in unclear if "needs" in v), default=0)
    images = "more than 1,000" if needs > 1000 else f"about {needs}"
    return (
        f"None so far: for {len(unclear)} of {len(measured)} methods it cannot be told from "
        f"{unclear[0]['n']} images; the clearest of them would need {images}"
        f"{f', and there are {there}' if 0 < there < needs else ''}."
    )
