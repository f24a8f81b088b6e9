"""Claims: names that are spelt wrong are noticed, and each verdict can come out."""

from __future__ import annotations

import pytest

from utils.report import claims
from utils.stats import Interval

RESULTS = {
    "meta": {"profile": "smoke"},
    "05_gradcam": {"gain": 0.2, "gain_low": 0.1, "gain_high": 0.3},
    "12_explain_to_improve": {"both.mean": 0.01, "both.low": -0.02, "both.high": 0.04},
}


def test_intervals_of_both_spellings_are_read_and_turned_round() -> None:
    numbers = claims.Numbers(RESULTS)
    assert numbers.interval("05_gradcam", "gain", "{:+.1f}") == "+0.2 [+0.1, +0.3]"
    assert numbers.ends("12_explain_to_improve", "both", -1) == Interval(-0.01, -0.04, 0.02)
    assert numbers.starting("05_gradcam", "gain_") == {"low": 0.1, "high": 0.3}
    assert not numbers.misspelt


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    forms = {"{:+.3f}": "0.000", "{:.2f}": "0.00", "{:.0%}": "0%"}
    for form, zero in forms.items():
        assert {claims.in_words(v, form) for v in (-0.0004, 0.0, 0.0004)} == {zero}
    assert claims.in_words(-0.0006, "{:+.3f}") == "-0.001" and claims.in_words(2, "{:+.0f}") == "+2"
    assert str(Interval(-0.004, -0.006, 0.02)) == "0.00 (-0.01 to 0.02)"


def test_a_name_that_a_notebook_did_not_save_is_remembered() -> None:
    numbers = claims.Numbers(RESULTS)
    assert numbers.text("05_gradcam", "gains") == claims.MISSING
    assert numbers.interval("05_gradcam", "other", optional=True) == claims.MISSING
    assert numbers.text("06_lrp", "gain") == claims.MISSING  # was not run
    assert numbers.misspelt == {"05_gradcam: gains"}


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        (Interval(0.1, 0.02, 0.2), claims.SAME),
        (Interval(0.01, 0.005, 0.02), claims.EXCLUDED),  # certain, and too small to count
        (Interval(0.1, -0.1, 0.3), claims.OPEN),
        (None, claims.UNKNOWN),
    ],
)
def test_a_difference_needs_sign_and_size(ends: Interval | None, verdict: str) -> None:
    assert claims.by_size(ends, 1, 0.05) == verdict


def test_levels_bars_and_what_cannot_be_tested() -> None:
    near = Interval(0.8, 0.79, 0.81)
    assert claims.by_level(near, 0.805) == claims.SAME
    assert claims.by_level(near, 0.9) == claims.EXCLUDED
    bars = [claims.by_bars(value, 0.5, 0.1) for value in (0.7, 0.5, 0.3, None)]
    assert bars == [claims.SAME, claims.OPEN, claims.EXCLUDED, claims.UNKNOWN]
    assert claims.if_testable(False, claims.EXCLUDED) == claims.UNTESTABLE
    assert claims.if_testable(False, claims.UNKNOWN) == claims.UNKNOWN


def test_the_table_escapes_its_words() -> None:
    row = claims.Claim("a < b", "yes", "0.1", "0.05", claims.SAME, "how")
    page = claims.table({"A & B": [row]}, "Claims")
    assert "a &lt; b" in page and "A &amp; B" in page and page.count("<tr>") == 3
