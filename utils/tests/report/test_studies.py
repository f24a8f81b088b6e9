"""The five studies: what slim models cannot test is said so, and rules give each verdict."""

from __future__ import annotations

import pytest

from utils.report import studies
from utils.report.claims import EXCLUDED, OPEN, SAME, UNKNOWN, UNTESTABLE, Claim, Numbers


def rows(results: dict, profile: str = "demo") -> dict[str, Claim]:
    found = studies.studies(Numbers(results), profile, "CIFAR-10 (a copy)")
    assert len(found) == 5
    return {row.claim: row for claims in found.values() for row in claims}


def ends(name: str, low: float, high: float) -> dict[str, float]:
    return {name: (low + high) / 2, f"{name}_low": low, f"{name}_high": high}


def test_without_results_no_claim_has_a_verdict() -> None:
    assert {row.verdict for row in rows({}).values()} == {UNKNOWN, UNTESTABLE}


def test_levels_need_the_published_models() -> None:
    results = {"04_evaluation": ends("vit.accuracy", 0.97, 0.98)}
    claim = "accuracy of the ViT with 4,050 training images"
    verdicts = {p: rows(results, p)[claim].verdict for p in ("demo", "paper")}
    assert verdicts == {"demo": UNTESTABLE, "paper": SAME}


@pytest.mark.parametrize(
    ("low", "high", "distance", "verdict"),
    [(0.92, 0.98, 0.03, SAME), (0.92, 0.98, 0.07, OPEN), (0.5, 0.8, 0.03, EXCLUDED)],
)
def test_the_iav_is_global_if_another_image_gives_it(
    low: float, high: float, distance: float, verdict: str
) -> None:
    numbers = ends("vit.own_and_other_correlation", low, high)
    numbers["vit.own_and_other_distance"] = distance
    claim = "the IAV is somehow global, a property of the model and not of the input"
    assert rows({"10_iav": numbers})[claim].verdict == verdict


@pytest.mark.parametrize(("gap", "verdict"), [(0.2, UNTESTABLE), (0.04, SAME)])
def test_late_blocks_are_compared_at_equal_accuracy(gap: float, verdict: str) -> None:
    late = {"contrast": 0.6, "mae": 0.7, "imagenet": 0.3}
    numbers = {f"vit.{name}.ia_late_mean": value for name, value in late.items()}
    claim = "late blocks agree more without labels than with"
    assert rows({"10_iav": numbers | {"study.accuracy_gap": gap}})[claim].verdict == verdict


@pytest.mark.parametrize(
    ("gap", "low", "high", "verdict"),
    [
        (0.02, 0.05, 0.3, SAME),
        (0.02, -0.1, 0.05, EXCLUDED),
        (0.02, -0.1, 0.3, OPEN),
        (0.2, 0.1, 0.3, UNTESTABLE),
    ],
)
def test_the_study_at_equal_accuracy_goes_before_the_notebooks_own_runs(
    gap: float, low: float, high: float, verdict: str
) -> None:
    late = {"contrast": 0.6, "mae": 0.7, "imagenet": 0.3}
    numbers = {f"matched.{name}.ia_late_mean": value for name, value in late.items()}
    numbers |= ends("matched.late_gap", low, high)
    numbers |= {"matched.accuracy_gap": gap, "study.accuracy_gap": 0.25}
    claim = "late blocks agree more without labels than with"
    assert rows({"10_iav": numbers})[claim].verdict == verdict


@pytest.mark.parametrize(
    ("half", "excluded", "verdict"), [(0.01, 1, EXCLUDED), (0.02, 0, OPEN), (0.004, 0, SAME)]
)
def test_looking_is_judged_against_the_loop_without_it(
    half: float, excluded: int, verdict: str
) -> None:
    mean = 0.014 if verdict == SAME else 0.0
    numbers: dict[str, float] = {"looking_of_published_size_excluded": excluded}
    for arm in ("other_maps", "uniform_maps"):
        name = f"both.minus_{arm}"
        values = {"mean": mean, "low": mean - half, "high": mean + half}
        numbers |= {f"{name}.{end}": value for end, value in values.items()}
    assert (
        rows({"12_explain_to_improve": numbers})["explainability is what helps"].verdict == verdict
    )
