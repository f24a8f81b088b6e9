"""The report's first page and its list of failures, in sentences made from the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from . import claims
from .claims import AGREEMENT, EVALUATION, GRADCAM, LOOP, MISSING, TRUST, Claim, Numbers

NETWORKS = {"resnet": "ResNet", "vit": "ViT"}
METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "lrp": "LRP",
    "attnlrp": "AttnLRP",
    "integrated_gradients": "Integrated Gradients",
    "smoothgrad": "SmoothGrad",
    "saliency": "saliency",
    "attention_rollout": "attention rollout",
    "gradient_rollout": "gradient rollout",
}
FIVE_QUESTIONS = {  # of notebook 11
    "mosaic": "Which part shows the class?",
    "shortcut": "Does the model use a shortcut?",
    "idsds": "Which parts does the answer need?",
    "parameters": "Does the map depend on what was learned?",
    "classes": "Does the map depend on the class?",
}
GLOBAL = "the IAV is somehow global, a property of the model and not of the input"
LOOKING = "explainability is what helps"
BADLY_CALIBRATED = 0.05  # mean gap between confidence and accuracy


def of_methods(n: Numbers, key: str, ending: str) -> dict[str, float]:
    """{method: number} of a network in notebook 11, such as lrp.mosaic."""
    saved = n.starting(TRUST, f"{key}.")
    return {m: saved[f"{m}.{ending}"] for m in METHOD_NAMES if f"{m}.{ending}" in saved}


def clearing(n: Numbers, key: str, question: str) -> list[str] | None:
    """The methods that clear the bar of a question of notebook 11; None if it was not run."""
    clears = of_methods(n, key, f"decision_{question}_clears")
    return [METHOD_NAMES[m] for m, yes in clears.items() if yes] if clears else None


def _best_on_mosaics(n: Numbers, key: str) -> str:
    shares = of_methods(n, key, "mosaic")
    if not shares:
        return MISSING
    best = max(shares, key=lambda method: shares[method])
    return f"{METHOD_NAMES[best]} with {n.interval(TRUST, f'{key}.{best}.mosaic', '{:.2f}')}"


def _mosaics(n: Numbers) -> str:
    seen = [n.get(TRUST, f"{key}.mosaic_accuracy", optional=True) for key in NETWORKS]
    also = "" if None in seen else " (which recognise {:.0%} and {:.0%} of a mosaic's classes)"
    able = [label for key, label in NETWORKS.items() if clearing(n, key, "mosaic")]
    return (
        f"**{'Maps can' if able else 'No map can'} find the class on the "
        f"{' and the '.join(able or NETWORKS.values())}.** In mosaics of four images, a map that "
        "ignores the class puts on average 0.25 of its mass into the right tile. The best maps: "
        f"on the ResNet {_best_on_mosaics(n, 'resnet')}, on the ViT {_best_on_mosaics(n, 'vit')}"
        f"{also.format(*seen)}."
    )


def _methods(n: Numbers) -> str:
    answers = [set(clearing(n, key, q) or ()) for key in NETWORKS for q in FIVE_QUESTIONS]
    best = sorted(set.intersection(*answers))
    unanswered = [
        words
        for question, words in FIVE_QUESTIONS.items()
        if all(clearing(n, key, question) == [] for key in NETWORKS)
    ]
    return (
        f"**{' and '.join(best) or 'No method'} answer{'s' * (len(best) < 2)} all five questions "
        f"on both networks.** {n.text(TRUST, 'comparisons', '{:.0f}')} comparisons are corrected "
        "together. "
        + (
            f"No method answers “{'” or “'.join(unanswered)}” on either network."
            if unanswered
            else "Each question is answered by a method on at least one network (see the appendix)."
        )
    )


def _bold(verdict: str, same: str, excluded: str, undecided: str) -> str:
    """The finding in bold that fits the verdict."""
    return f"**{ {claims.SAME: same, claims.EXCLUDED: excluded}.get(verdict, undecided) }**"


def _blurred(n: Numbers) -> str:
    verdict = claims.by_size(n.ends(GRADCAM, "resnet.blur_over_centre"), 1, claims.FALL)
    return (
        _bold(
            verdict,
            "Grad-CAM marks what matters better than the middle of the picture.",
            "Grad-CAM is not visibly better than the middle of the picture.",
            "Whether Grad-CAM beats the middle of the picture is open.",
        )
        + " Fall of the ResNet's probability when the quarter that it marks is blurred, minus the "
        f"fall for a random quarter: {n.interval(GRADCAM, 'resnet.blur_difference', '{:+.3f}')}; "
        "minus the fall for the middle quarter: "
        f"{n.interval(GRADCAM, 'resnet.blur_over_centre', '{:+.3f}')} (below {claims.FALL} does "
        "not count)."
    )


def _attention(n: Numbers, verdict: str) -> str:
    return (
        _bold(
            verdict,
            "How well attention agrees with the gradient is a property of the model, not of the "
            "image.",
            "How well attention agrees with the gradient depends on the image.",
            "Whether the agreement of attention and gradient depends on the image is open.",
        )
        + " Measured once with the right image's attention and once with another image's, the "
        f"heads' agreement correlates at {n.interval(AGREEMENT, 'vit.own_and_other_correlation')}; "
        f"on average the two differ by {n.text(AGREEMENT, 'vit.own_and_other_distance')}."
    )


def _loop(n: Numbers, verdict: str) -> str:
    return (
        _bold(
            verdict,
            "Looking at the maps is what makes the feedback loop help.",
            "Looking at the maps does not bring the published gain of 0.025.",
            "Whether looking at the maps makes the feedback loop help is open.",
        )
        + " Retraining on images made for the described mistakes changes the accuracy by "
        f"{n.interval(LOOP, 'both.minus_baseline', '{:+.3f}')}; the difference from the same loop "
        f"with another image's maps is {n.interval(LOOP, 'both.minus_other_maps', '{:+.3f}')}."
    )


def findings(n: Numbers, table: Mapping[str, Sequence[Claim]]) -> list[str]:
    """The five findings of the first page, in Markdown; table: studies.studies(...).

    A sentence whose number was not measured contains claims.MISSING.
    """
    verdict = {row.claim: row.verdict for rows in table.values() for row in rows}
    return [
        _mosaics(n),
        _methods(n),
        _blurred(n),
        _attention(n, verdict[GLOBAL]),
        _loop(n, verdict[LOOKING]),
    ]


def verdicts(table: Mapping[str, Sequence[Claim]]) -> str:
    """How many of the published claims have which verdict, as a paragraph in Markdown."""
    count = Counter(row.verdict for rows in table.values() for row in rows)
    known = (claims.SAME, claims.EXCLUDED, claims.OPEN)
    words = ", ".join(f"{count[verdict]} {verdict}" for verdict in known)
    rest = f"{count[claims.UNTESTABLE]} cannot be tested here"
    if count[claims.UNKNOWN]:
        rest += f", {count[claims.UNKNOWN]} not measured"
    return (
        f"**Verdicts on {count.total()} published claims:** {words}; {rest}. The next section "
        "gives each claim with the size that counts."
    )


def failures(
    n: Numbers, table: Mapping[str, Sequence[Claim]], bench: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """What did not work, a sentence each; bench: the rows of figures/bench.json."""
    lines = [
        f"No method answers “{words}” on the {' and the '.join(networks)}."
        for question, words in FIVE_QUESTIONS.items()
        if (networks := [NETWORKS[key] for key in NETWORKS if clearing(n, key, question) == []])
    ]
    lines += [
        f"The score {score} ranks random order above a method on the {label}, so it is unfit."
        for key, label in NETWORKS.items()
        for score in ("idsds", "deletion", "insertion", "saco")
        if n.get(TRUST, f"{key}.unfit_{score}", optional=True)
    ]
    lines += [
        f"Not confirmed: “{row.claim}”. Here: {row.here}; size that counts: {row.size}."
        for rows in table.values()
        for row in rows
        if row.verdict == claims.EXCLUDED
    ]
    iav = n.get(AGREEMENT, "told.iav.share")
    if iav is not None and n.get(AGREEMENT, "told.entropy.share") == iav:
        lines.append("Attention entropy recognises the initialisation as often as the IAV does.")
    if n.get(LOOP, "findings") is not None:
        held, total = (n.text(LOOP, k, "{:.0f}") for k in ("findings_that_hold", "findings"))
        lines.append(
            f"Of {total} findings that describe the mistakes, {held} hold on other images."
        )
    for key, label in NETWORKS.items():
        error, after = (
            n.get(EVALUATION, f"{key}.{k}", optional=True) for k in ("ece", "scaled_ece")
        )
        if error is not None and error > BADLY_CALIBRATED:
            scaled = "" if after is None else f"; after temperature scaling {after:.2f}"
            lines.append(
                f"Confidence and accuracy of the {label} are {error:.2f} apart on average{scaled}."
            )
    return lines + [
        f"Speed target missed: {e['name']}, {e['ratio']:.2f} (target: {e['bound']} {e['target']:g})."
        for e in bench
        if not e["holds"]
    ]
