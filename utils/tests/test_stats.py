"""Intervals cover, corrections correct, and tests that cannot tell say so."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import wilcoxon
from sklearn.metrics import roc_auc_score

from utils import stats


def test_the_interval_of_a_mean_covers_it_about_19_times_in_20():
    rng = np.random.default_rng(0)
    drawn = [stats.mean_interval(rng.exponential(size=40), draws=400) for _ in range(200)]
    hits = [low <= 1.0 <= high for _, low, high in drawn]
    assert 0.88 <= np.mean(hits) <= 0.99


def test_intervals_are_repeatable_and_take_tensors_and_answers():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    first, again = stats.mean_interval(values), stats.mean_interval(values.numpy())
    assert first == again and first.low < first.mean < first.high
    hits = stats.mean_interval(values > 0)
    assert 0 < hits.low < hits.mean < hits.high < 1
    large = stats.mean_interval(np.random.default_rng(1).normal(size=5000))
    assert large.high - large.low == pytest.approx(2 * 1.96 / math.sqrt(5000), rel=0.1)


def test_values_without_spread_and_single_values():
    assert stats.mean_interval([0.25] * 9) == (0.25, 0.25, 0.25)
    single = stats.mean_interval([0.7])
    assert single.mean == 0.7 and math.isnan(single.low) and math.isnan(single.high)
    assert not single.above(0) and not single.below(1)
    assert "no interval" in str(single)
    rare = stats.mean_interval([0.0] * 49 + [1.0])
    assert 0 <= rare.low < rare.mean < rare.high
    for wrong in ([], [[1.0]], [1.0, math.nan]):
        with pytest.raises(ValueError):
            stats.mean_interval(wrong)


def test_a_paired_difference_is_sharper_than_two_separate_means():
    rng = np.random.default_rng(0)
    easy = rng.normal(size=60)
    a, b = easy + 0.2 + 0.1 * rng.normal(size=60), easy
    difference = stats.difference_interval(a, b)
    assert difference.above(0.1) and difference.below(0.3)
    width = difference.high - difference.low
    separate = stats.mean_interval(a)
    assert width < (separate.high - separate.low) / 3
    with pytest.raises(ValueError, match="same images"):
        stats.difference_interval(a, b[1:])


def test_auc_equals_scikit_learn_also_with_ties_and_counts_models_not_images():
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(2, 9, 40), rng.integers(0, 7, 60)
    result = stats.auc_interval(positive, negative)
    labels = np.r_[np.ones(40), np.zeros(60)]
    assert result.mean == pytest.approx(roc_auc_score(labels, np.r_[positive, negative]))
    assert result.low < result.mean < result.high
    offsets = rng.normal(size=(2, 5, 1))
    images = offsets + 0.1 * rng.normal(size=(2, 5, 40))  # models differ, their images hardly
    clustered = stats.auc_interval(images[0], images[1], draws=300)
    pooled = stats.auc_interval(images[0].ravel(), images[1].ravel(), draws=300)
    assert clustered.mean == pytest.approx(pooled.mean)
    assert clustered.high - clustered.low > 2 * (pooled.high - pooled.low)


def test_any_statistic_paired_or_not():
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    y = x + 0.3 * rng.normal(size=80)
    correlated = stats.bootstrap(lambda a, b: np.corrcoef(a, b)[0, 1], x, y, paired=True, draws=200)
    assert correlated.above(0.8)
    broken = stats.bootstrap(lambda a, b: np.corrcoef(a, b)[0, 1], x, y, draws=200)
    assert broken.low < 0.2  # rows drawn apart have nothing to do with each other


def _of_means(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.mean(0), b.mean(0))[0, 1])


def test_the_interval_of_a_correlation_of_means_covers_where_the_bootstrap_is_too_low():
    rng = np.random.default_rng(0)
    heads = rng.normal(size=30)
    inside, below = [], []
    for _ in range(60):
        a, b = (heads + rng.normal(scale=0.8, size=(40, 30)) for _ in range(2))
        estimate, low, high = stats.correlation_interval(_of_means, a, b)
        assert low < estimate < high <= 1
        # what 40 images give on average: the means' noise lowers the correlation
        inside.append(low <= heads.var() / (heads.var() + 0.64 / 40) <= high)
        below.append(stats.bootstrap(_of_means, a, b, paired=True, draws=40).high < estimate)
    assert np.mean(inside) >= 0.85 and np.mean(below) > 0.2
    assert math.isnan(stats.correlation_interval(_of_means, a[:1], b[:1]).low)


def test_holm_on_known_numbers():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.5]).tolist() == [1.0, 1.0]
    assert stats.holm([0.02]).tolist() == [0.02]
    assert stats.holm([]).size == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.holm([1.2])


def test_holm_keeps_false_alarms_rare_where_plain_tests_do_not():
    rng = np.random.default_rng(0)
    p = rng.random((400, 20))  # nothing is true
    plain = (p < 0.05).any(1).mean()
    corrected = np.mean([(stats.holm(row) < 0.05).any() for row in p])
    assert plain > 0.5 and corrected < 0.09


def test_permutation_is_exact_where_small():
    assert stats.permutation_p([1.0, 2.0, 3.0, 4.0]) == pytest.approx(2 / 16)
    apart = stats.permutation_p([5.0, 6.0, 7.0], [1.0, 2.0, 3.0], paired=False)
    assert apart == pytest.approx(2 / 20)
    rng = np.random.default_rng(0)
    shifted = rng.normal(0.5, 1, 40)
    assert stats.permutation_p(shifted) == pytest.approx(wilcoxon(shifted).pvalue, abs=0.02)
    assert stats.permutation_p(rng.normal(size=40)) > 0.05
    with pytest.raises(ValueError, match="same images"):
        stats.permutation_p([1.0, 2.0], [1.0])


def test_the_number_of_images_is_the_one_that_finds_the_effect():
    assert stats.images_needed(0.5, 1.0) == 34  # textbook: Cohen's d 0.5, paired, power 0.8
    assert stats.images_needed(-0.5, 1.0) == 34
    assert stats.images_needed(0.01, 1.0) > 70_000
    assert stats.images_needed(1.0, 0.0) == 2
    n = stats.images_needed(0.1, 0.25)
    rng = np.random.default_rng(0)
    found = [stats.mean_interval(rng.normal(0.1, 0.25, n), draws=300).above(0) for _ in range(200)]
    assert 0.7 < np.mean(found) < 0.95
    with pytest.raises(ValueError, match="other than 0"):
        stats.images_needed(0, 1)


@pytest.mark.parametrize(
    ("interval", "published", "expected"),
    [
        ((5.0, 3.0, 7.0), 13.4, "same"),
        ((-5.0, -7.0, -3.0), 13.4, "excluded"),
        ((0.5, -0.5, 1.5), 1, "excluded"),  # too small to bear the claim out, whatever its sign
        ((3.0, -1.0, 7.0), 1, "inconclusive"),
        ((-5.0, -7.0, -3.0), -1, "same"),
        ((5.0, math.nan, math.nan), 1, "inconclusive"),
        ((1.5, 0.5, 2.5), 1, "inconclusive"),
    ],
)
def test_verdicts(interval, published, expected):
    assert stats.verdict(interval, published, size=2.0) == expected
