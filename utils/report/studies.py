"""What five studies claim, beside what the notebooks measured, each claim with its verdict.

The size that counts stands in each row. Levels of large published models cannot be tested with
slim ones, so in the profiles smoke and demo those rows say so.
"""

from __future__ import annotations

from dataclasses import replace

from . import claims, study_loop, study_networks, study_pretraining
from .claims import Claim, Numbers, Setting


def _full_data(n: Numbers, run: Setting, level: float, recipe: str) -> Claim:
    """An accuracy after training on all of CIFAR-10."""
    slim = n.text(claims.EVALUATION, "vit.full_data.accuracy", optional=True)
    return claims.accuracy(
        n,
        f"test accuracy after {recipe} on all of CIFAR-10",
        level,
        (claims.EVALUATION, "vit.accuracy"),
        run.profile == "full" and run.cifar,
        "needs the profile full, which trains on all images"
        + ("" if slim == claims.MISSING else f"; the slim ViT that saw 45,000 images: {slim}"),
    )


def _blurred(n: Numbers, claim: str, saved: tuple[str, str], how: str) -> Claim:
    """A fall of the probability where the marked quarter is blurred; saved: notebook and name."""
    verdict = claims.by_size(n.ends(*saved), 1, claims.FALL)
    here, size = n.interval(*saved, "{:+.3f}"), f"+{claims.FALL} of probability"
    return Claim(claim, claims.PICTURES, here, size, verdict, how)


def _shankaranandha(n: Numbers, run: Setting) -> list[Claim]:
    return [
        _full_data(n, run, 0.9471, "10 epochs of Adam"),
        _blurred(
            n,
            "Integrated Gradients marks the regions that contribute",
            (claims.GRADIENTS, "vit.blur_difference"),
            "fall in probability: marked quarter blurred, minus a random one; minus the middle: "
            + n.interval(claims.GRADIENTS, "vit.blur_over_centre", "{:+.3f}"),
        ),
        Claim(
            "a blurred airplane becomes a bird, and its map changes",
            "one picture",
            "–",
            "–",
            claims.UNTESTABLE,
            "one picture is no claim about others; the row above is its mean over many",
        ),
    ]


def _project(n: Numbers, run: Setting) -> list[Claim]:
    alike = n.get(claims.ATTENTION, "vit.blocks_correlation")
    return [
        _full_data(n, run, 0.9851, "8 epochs of AdamW"),
        Claim(
            "the 12 layers have different focal points",
            claims.PICTURES,
            f"two blocks' maps correlate at {n.text(claims.ATTENTION, 'vit.blocks_correlation', '{:.2f}')}",
            "below 0.4; above 0.6 excludes",
            claims.by_bars(None if alike is None else -alike, -0.5, 0.1),
            "mean over test images; the blocks have "
            f"{n.text(claims.ATTENTION, 'vit.different_peaks', '{:.1f}')} different peaks",
        ),
        _blurred(
            n,
            "the last layer's mean over heads shows what drives the class",
            (claims.ATTENTION, "vit.last_block.blur_difference"),
            "marked quarter blurred, minus a random one; last block minus the mean of the others: "
            + n.interval(claims.ATTENTION, "vit.last_block_lead", "{:+.3f}"),
        ),
    ]


def studies(n: Numbers, profile: str, data: str) -> dict[str, list[Claim]]:
    """All claims under the studies' own titles."""
    run = Setting(profile, data)
    rows = {
        "Explainable Transfer Learning for CNNs and Transformers (Bicker, Rane, Subramanian)": [
            *study_networks.claims(n, run),
        ],
        "Fine Tuning & Interpretability Analysis of a Pretrained Vision Transformer (ViT) "
        "(Shankaranandha)": _shankaranandha(n, run),
        "Vision Transformer on CIFAR-10 with attention maps (a project page)": _project(n, run),
        "Does Explainability Help in Improving ViTs? (Vemula, with Govindaraj, Yang, Nivetha, "
        "Zinjad)": study_loop.claims(n, run),
        "Explanation on Pretraining Bias of Finetuned Vision Transformer (Park & Choi 2022)": study_pretraining.claims(
            n, run
        ),
    }
    if profile != "smoke":
        return rows
    return {study: [_untrained(row) for row in table] for study, table in rows.items()}


def _untrained(row: Claim) -> Claim:
    """A row of the smoke profile, whose models guess: it tests programs, not claims."""
    return replace(
        row,
        verdict=claims.if_testable(False, row.verdict),
        how="the smoke profile tests programs, not claims",
    )
