"""The first page's sentences follow the numbers, and failures are listed."""

from __future__ import annotations

from utils.report import claims, headlines, studies
from utils.report.claims import MISSING, Numbers


def ends(name: str, low: float, high: float) -> dict[str, float]:
    return {name: (low + high) / 2, f"{name}_low": low, f"{name}_high": high}


def trust(key: str, **clears: int) -> dict[str, float]:
    """Notebook 11's numbers of one network; clears: question -> whether LRP clears its bar."""
    numbers = ends(f"{key}.lrp.mosaic", 0.7, 0.9) | ends(f"{key}.gradcam.mosaic", 0.2, 0.3)
    return numbers | {f"{key}.lrp.decision_{q}_clears": yes for q, yes in clears.items()}


def page(results: dict) -> tuple[Numbers, list[str]]:
    numbers = Numbers(results)
    return numbers, headlines.findings(numbers, studies.studies(numbers, "demo", "CIFAR-10"))


def test_the_findings_follow_the_numbers() -> None:
    every = dict.fromkeys(headlines.FIVE_QUESTIONS, 1)
    results = {
        "11_trust": trust("resnet", **every) | trust("vit", **every) | {"comparisons": 65},
        "05_gradcam": ends("resnet.blur_difference", 0.1, 0.2)
        | ends("resnet.blur_over_centre", -0.1, 0.04),
    }
    _, (mosaics, methods, blurred, *_) = page(results)
    assert "**Maps can find the class on the ResNet and the ViT.**" in mosaics
    assert mosaics.count("LRP with 0.80 [0.70, 0.90]") == 2
    assert methods.startswith("**LRP answers all five questions on both networks.** 65")
    assert blurred.startswith("**Grad-CAM is not visibly better than the middle of the picture.**")
    results["11_trust"] |= {"vit.lrp.decision_mosaic_clears": 0}
    results["05_gradcam"] |= ends("resnet.blur_over_centre", 0.02, 0.2)
    results["11_trust"] |= {"resnet.mosaic_accuracy": 0.8, "vit.mosaic_accuracy": 0.55}
    _, (mosaics, methods, blurred, *_) = page(results)
    assert "(which recognise 80% and 55% of a mosaic's classes)" in mosaics
    assert "on the ResNet.**" in mosaics and methods.startswith("**No method answers all five")
    assert "Each question is answered by a method on at least one network" in methods
    assert "better than the middle of the picture.**" in blurred and "not visibly" not in blurred


def test_what_was_not_measured_is_said_so_and_makes_no_failure() -> None:
    numbers, sentences = page({})
    assert len(sentences) == 5 and all(MISSING in words for words in sentences)
    assert headlines.failures(numbers, {}) == []


def test_failures_name_questions_claims_and_calibration() -> None:
    numbers = Numbers(
        {
            "11_trust": trust("vit", mosaic=0) | {"resnet.unfit_deletion": 1},
            "04_evaluation": {"resnet.ece": 0.06, "resnet.scaled_ece": 0.04, "vit.ece": 0.01},
        }
    )
    claim = claims.Claim("a claim", "yes", "+0.01", "0.1", claims.EXCLUDED, "how")
    slow = {"name": "lrp", "ratio": 2.5, "bound": "at most", "target": 2.0, "holds": False}
    lines = headlines.failures(numbers, {"a study": [claim]}, [slow])
    assert lines == [
        "No method answers “Which part shows the class?” on the ViT.",
        "The score deletion ranks random order above a method on the ResNet, so it is unfit.",
        "Not confirmed: “a claim”. Here: +0.01; size that counts: 0.1.",
        "Confidence and accuracy of the ResNet are 0.06 apart on average; after temperature "
        "scaling 0.04.",
        "Speed target missed: lrp, 2.50 (target: at most 2).",
    ]


def test_verdicts_are_counted() -> None:
    row = claims.Claim("a", "b", "c", "d", claims.SAME, "e")
    words = headlines.verdicts({"one": [row, row]})
    assert "**Verdicts on 2 published claims:** 2 same, 0 excluded, 0 inconclusive" in words
