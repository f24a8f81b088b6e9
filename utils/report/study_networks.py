"""What the study of CNNs and Transformers claims, beside what was measured."""

from __future__ import annotations

from ..stats import Interval
from .claims import (
    EVALUATION,
    EXCLUDED,
    MISSING,
    OPEN,
    PICTURES,
    RELEVANCE,
    SAME,
    TRUST,
    UNKNOWN,
    UNTESTABLE,
    Claim,
    Numbers,
    Setting,
    accuracy,
    by_bars,
    by_size,
    if_testable,
)

CHANCE = 0.25  # share of a mosaic's tile
TILE, AREA = 0.10, 0.05  # sizes that count: of the map, of the picture
CLASSES = "needs CIFAR-10's classes"
NAMES = {"resnet": "ResNet", "vit": "ViT"}


def extremes(n: Numbers, key: str) -> str:
    """The hardest and the easiest class of a model."""
    rows = n.starting(EVALUATION, f"{key}.class_accuracy.")
    return (
        f"{min(rows, key=lambda name: rows[name])} worst, {max(rows, key=lambda name: rows[name])} best"
        if rows
        else MISSING
    )


def _cat_and_ship(n: Numbers, key: str) -> str:
    rows = n.starting(EVALUATION, f"{key}.class_accuracy.")
    if not rows:
        return UNKNOWN
    order = sorted(rows, key=lambda name: rows[name])
    if order[0] == "cat" and order[-1] == "ship":
        return SAME
    return OPEN if "cat" in order[:3] and "ship" in order[-3:] else EXCLUDED


def confused(n: Numbers, key: str) -> list[str]:
    """The three most confused pairs of a model, most confused first."""
    rows = n.starting(EVALUATION, f"{key}.confused.")
    return sorted(rows, key=lambda name: rows[name], reverse=True)[:3]


def _confusions(n: Numbers) -> str:
    pairs = [[frozenset(pair.split("-")) for pair in confused(n, key)] for key in NAMES]
    if not all(pairs):
        return UNKNOWN
    animals = frozenset(("cat", "dog"))
    others = {frozenset(("automobile", "truck")), frozenset(("airplane", "bird"))}
    if all(first == animals and set(rest) == others for first, *rest in pairs):
        return SAME
    return OPEN if all(animals == first for first, *_ in pairs) else EXCLUDED


def _accuracies(n: Numbers, run: Setting) -> list[Claim]:
    fit = run.large and run.cifar and run.profile == "paper"
    rows = [
        accuracy(
            n,
            f"accuracy of the {label} with 4,050 training images",
            level,
            (EVALUATION, f"{key}.accuracy"),
            fit,
            run.why(),
        )
        for key, label, level in (("resnet", "ResNet34", 0.843), ("vit", "ViT", 0.977))
    ]
    lead = n.ends(EVALUATION, "difference", sign=-1)
    cnn, vit = (n.get(EVALUATION, f"{key}.roc_auc", optional=True) for key in NAMES)
    ahead = None if cnn is None or vit is None else vit - cnn
    return [
        *rows,
        Claim(
            "the ViT is more accurate than the ResNet",
            "+0.134",
            n.interval(EVALUATION, "difference", "{:+.3f}", -1),
            "+0.067, half of it",
            if_testable(run.large, by_size(lead, 0.134, 0.067)),
            run.why("paired on the same test images"),
        ),
        Claim(
            "its ROC-AUC is higher as well",
            "0.9996 against 0.986",
            " against ".join(
                n.text(EVALUATION, f"{k}.roc_auc", optional=True) for k in ("vit", "resnet")
            ),
            "+0.005",
            if_testable(run.large, by_bars(ahead, 0.005, 0.0)),
            run.why("a difference without an interval"),
        ),
    ]


def _classes(n: Numbers, run: Setting) -> list[Claim]:
    lowest = min(n.starting(EVALUATION, "vit.class_accuracy.").values(), default=None)
    rows = [
        Claim(
            f"cats are hardest, ships easiest for the {NAMES[key]}",
            "yes",
            extremes(n, key),
            "first and last rank",
            if_testable(run.cifar, _cat_and_ship(n, key)),
            "would be inconclusive with both among the outer three" if run.cifar else CLASSES,
        )
        for key in NAMES
    ]
    return [
        *rows,
        Claim(
            "the ViT exceeds 0.95 in every class",
            "yes",
            MISSING if lowest is None else f"lowest class {lowest:.2f}",
            "0.02 around the bar",
            if_testable(run.large and run.cifar, by_bars(lowest, 0.95, 0.02)),
            run.why("a class has few test images"),
        ),
        Claim(
            "cat and dog are confused most, then automobile and truck, airplane and bird",
            "yes",
            "; ".join(f"{NAMES[k]}: {', '.join(confused(n, k)) or MISSING}" for k in NAMES),
            "the first three pairs",
            if_testable(run.cifar, _confusions(n)),
            "would be inconclusive with only cat and dog as published" if run.cifar else CLASSES,
        ),
        Claim(
            "three to five epochs suffice",
            "yes",
            f"best epochs: {n.text('02_finetune_resnet34', 'resnet.best_epoch', '{:.0f}')} (ResNet), "
            f"{n.text('03_finetune_vit', 'vit.best_epoch', '{:.0f}')} (ViT)",
            "–",
            UNTESTABLE,
            "needs longer trainings of the same models beside the short ones",
        ),
    ]


def _maps(n: Numbers) -> list[Claim]:
    tiles = {
        key: n.ends(TRUST, f"{key}.{method}.mosaic", optional=True)
        for key, method in (("vit", "lrp"), ("resnet", "gradcam"))
    }
    beyond = {
        key: share and Interval(share.mean - CHANCE, share.low - CHANCE, share.high - CHANCE)
        for key, share in tiles.items()
    }
    rows = [
        Claim(
            f"{title} marks the object of the class",
            PICTURES,
            n.interval(TRUST, f"{key}.{method}.mosaic", optional=True),
            f"{CHANCE + TILE:.2f}; chance is {CHANCE}",
            by_size(beyond[key], 1, TILE),
            "share of the map in its class's tile of a mosaic; the model recognises "
            f"{n.text(TRUST, f'{key}.mosaic_accuracy', '{:.0%}')} of a mosaic's classes",
        )
        for key, method, title in (
            ("vit", "lrp", "LRP of the ViT"),
            ("resnet", "gradcam", "Grad-CAM of the ResNet"),
        )
    ]
    return [
        *rows,
        Claim(
            "in errors the ViT's relevance lies on a very small point",
            PICTURES,
            n.interval(RELEVANCE, "vit.area_difference", "{:+.3f}", optional=True),
            f"-{AREA} of the picture",
            by_size(n.ends(RELEVANCE, "vit.area_difference", optional=True), -1, AREA),
            "area that holds half of the map, wrong minus right answers",
        ),
        Claim(
            "wings, beaks, wheels, ears; in errors empty or unimportant regions",
            PICTURES,
            "–",
            "–",
            UNTESTABLE,
            "needs outlines of parts and of unimportant regions, which CIFAR-10 does not have",
        ),
    ]


def claims(n: Numbers, run: Setting) -> list[Claim]:
    """All rows of the study."""
    return [*_accuracies(n, run), *_classes(n, run), *_maps(n)]
