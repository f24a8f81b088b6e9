"""How sure is a number? Every interval, paired test, correction and power calculation.

Intervals are 95 % bootstrap intervals (Efron & Tibshirani 1993) from scipy, with a fixed seed: the
same values give the same interval. For up to BCA_LIMIT values they are bias-corrected (BCa), for
more the percentiles do as well and take less memory.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

__all__ = [
    "Interval",
    "auc_interval",
    "bootstrap",
    "correlation_interval",
    "difference_interval",
    "holm",
    "images_needed",
    "mean_interval",
    "permutation_p",
    "verdict",
]

BCA_LIMIT = 400
DRAWS = 2000
_BATCH_VALUES = 4_000_000  # numbers held at once while resampling


class Interval(NamedTuple):
    """An estimate and its 95 % interval; low and high are NaN where one value cannot tell."""

    mean: float
    low: float
    high: float

    def above(self, value: float) -> bool:
        """Does the whole interval lie above `value`? False if the interval is unknown."""
        return self.low > value

    def below(self, value: float) -> bool:
        """Does the whole interval lie below `value`? False if the interval is unknown."""
        return self.high < value

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.mean:z.2f} (one value: no interval)"
        return f"{self.mean:z.2f} ({self.low:z.2f} to {self.high:z.2f})"


def _values(values: ArrayLike, name: str = "values") -> np.ndarray:
    """A finite, non-empty 1-D array of float64. Raises ValueError otherwise."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"An interval needs a list of {name}, and this has shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"Some {name} are not finite numbers: leave them out and say how many.")
    return array


def bootstrap(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    paired: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """The 95 % percentile interval of `statistic(*samples)`; each sample is an array (N, ...).

    paired: the same rows are drawn from all samples. Draws whose statistic is NaN are left out.
    """
    arrays = [np.asarray(sample) for sample in samples]
    rng = np.random.default_rng(seed)
    results = np.empty(draws)
    for i in range(draws):
        rows = rng.integers(0, len(arrays[0]), len(arrays[0]))
        drawn = [
            a[rows if paired or j == 0 else rng.integers(0, len(a), len(a))]
            for j, a in enumerate(arrays)
        ]
        results[i] = statistic(*drawn)
    results = results[np.isfinite(results)]
    low, high = np.percentile(results, [2.5, 97.5]) if len(results) else (math.nan, math.nan)
    return Interval(float(statistic(*arrays)), float(low), float(high))


def correlation_interval(statistic: Callable[..., float], *samples: ArrayLike) -> Interval:
    """The 95 % interval of a correlation `statistic(*samples)`: jackknife on Fisher's scale.

    samples: arrays (N, ...) about the same rows, each left out once (Tukey 1958). A bootstrap of
    averaged rows is too low: rows drawn twice leave fewer different ones. One row gives NaN.
    """
    arrays = [np.asarray(sample) for sample in samples]
    n, estimate = len(arrays[0]), float(statistic(*arrays))
    shorter = [statistic(*(np.delete(a, i, 0) for a in arrays)) for i in range(n) if n > 1]
    z, *others = np.arctanh(np.clip([estimate, *shorter], -1 + 1e-12, 1 - 1e-12))
    error = math.sqrt((n - 1) * np.var(others)) if n > 1 else math.nan
    reach = stats.t.ppf(0.975, n - 1) * error
    return Interval(estimate, math.tanh(z - reach), math.tanh(z + reach))


def mean_interval(values: ArrayLike, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Mean of values (N,) with its 95 % bootstrap interval.

    Equal values give no width, a single value NaN. ValueError if there is none or not all finite.
    """
    array = _values(values)
    mean = float(array.mean())
    if len(array) == 1:
        return Interval(mean, math.nan, math.nan)
    if np.ptp(array) == 0:
        return Interval(mean, mean, mean)
    methods = ["BCa", "percentile"] if len(array) <= BCA_LIMIT else ["percentile"]
    low = high = math.nan
    for method in methods:  # BCa has no answer where nearly all values are the same
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            limits = stats.bootstrap(
                (array,),
                np.mean,
                n_resamples=draws,
                batch=max(1, min(draws, _BATCH_VALUES // len(array))),
                vectorized=True,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        low, high = float(limits.low), float(limits.high)
        if math.isfinite(low) and math.isfinite(high):
            break
    return Interval(mean, low, high)


def difference_interval(a: ArrayLike, b: ArrayLike, seed: int = 0) -> Interval:
    """Mean of a - b with its 95 % interval; a and b (N,) are about the same images, in one order.

    Raises ValueError if they are not equally many.
    """
    first, second = _values(a), _values(b)
    if len(first) != len(second):
        raise ValueError(
            f"A paired difference needs the same images twice, and these are {len(first)} and "
            f"{len(second)} values."
        )
    return mean_interval(first - second, seed=seed)


def _auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """P(a positive scores above a negative), ties a half (Mann-Whitney)."""
    positive, negative = positive.ravel(), negative.ravel()
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auc_interval(
    positive: ArrayLike, negative: ArrayLike, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """ROC-AUC of telling two groups apart by a score, with its 95 % bootstrap interval.

    positive, negative: scores (N,) or, for scores that come in clusters such as images of one
    model, (models, images): then whole models are drawn, so that many images of few models do not
    pass for much evidence. 0.5 is chance, 1 says that every positive scores higher.
    """
    groups = [np.asarray(scores, dtype=np.float64) for scores in (positive, negative)]
    if not all(g.size and np.isfinite(g).all() for g in groups):
        raise ValueError("An AUC needs finite scores in both groups.")
    if min(len(g) for g in groups) == 1:
        return Interval(_auc(*groups), math.nan, math.nan)
    return bootstrap(_auc, *groups, draws=draws, seed=seed)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's correction (1979) for many tests at once: adjusted p-values in the same order.

    A comparison with an adjusted value below 0.05 stands. ValueError for values outside 0..1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("Holm's correction needs a list of p-values between 0 and 1.")
    order = p.argsort(kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def permutation_p(
    a: ArrayLike, b: ArrayLike | None = None, paired: bool = True, draws: int = 9999, seed: int = 0
) -> float:
    """Two-sided p-value of "no difference in means", from exchanging the groups' labels.

    paired: a and b (N,) are about the same images, and each image's two values are exchanged
    (b=None: a holds the differences). Otherwise all values are dealt anew. Exact where there are
    no more arrangements than `draws`, else from that many at random.
    """
    first = _values(a)
    second = np.zeros_like(first) if b is None else _values(b)
    if paired and len(first) != len(second):
        raise ValueError("A paired test needs the same images twice: equally many values.")

    def difference(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return x.mean(axis) - y.mean(axis)

    result = stats.permutation_test(
        (first, second),
        difference,
        permutation_type="samples" if paired else "independent",
        n_resamples=draws,
        batch=max(1, _BATCH_VALUES // (len(first) + len(second))),
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(min(1.0, result.pvalue))


def images_needed(effect: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """How many images a paired difference needs to be seen: two-sided t-test, at least 2.

    effect: the smallest mean difference that matters; sd: standard deviation of the differences
    between images; power: the chance of finding the effect. ValueError for an effect of zero.
    """
    if effect == 0 or sd < 0 or not math.isfinite(effect) or not math.isfinite(sd):
        raise ValueError("Give an effect other than 0 and a standard deviation of 0 or more.")
    if not 0 < alpha < power < 1:
        raise ValueError("Power and alpha lie between 0 and 1, and power is the larger.")
    if sd == 0:
        return 2
    size = abs(effect) / sd
    wanted = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    n = max(2, math.ceil((wanted / size) ** 2))
    while True:  # the t-test needs a little more than the normal approximation
        limit = stats.t.ppf(1 - alpha / 2, n - 1)
        if n > 1000 or stats.nct.sf(limit, n - 1, size * math.sqrt(n)) >= power:
            return n
        n += 1


def verdict(interval: tuple[float, float, float], published: float, size: float) -> str:
    """Does a measured effect agree with a published one? "same", "excluded" or "inconclusive".

    published: the published effect, or just its sign; size: the smallest effect, in its
    direction, that would bear the claim out. "same": the interval lies on the published side of
    zero and the estimate reaches the size; "excluded": the whole interval lies below the size;
    "inconclusive": anything else, also without an interval.
    """
    if published == 0 or size <= 0:
        raise ValueError("A verdict needs the sign of the published effect and a size above 0.")
    sign = math.copysign(1, published)
    mean = sign * interval[0]
    low, high = sorted((sign * interval[1], sign * interval[2]))
    if low > 0 and mean >= size:
        return "same"
    return "excluded" if high < size else "inconclusive"
