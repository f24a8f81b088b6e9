"""Evaluation: each number against scikit-learn, scipy or a short computation of its own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as sk
from torch import nn

from utils import evaluate, scoring
from utils.data import ImageSet
from utils.evaluate import Predictions

CLASSES = ("ant", "bee", "cat", "dog")


def predictions(
    n: int = 200, skill: float = 1.5, seed: int = 0, classes: tuple[str, ...] = CLASSES
) -> Predictions:
    """A classifier that is right more often than chance, and often not."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, len(classes), (n,), generator=generator)
    logits = torch.randn(n, len(classes), generator=generator)
    logits[torch.arange(n), labels] += skill
    return Predictions(logits, labels, classes)


def made(rows: list[tuple[int, int, float]], classes: tuple[str, ...] = CLASSES) -> Predictions:
    """Predictions from (label, predicted class, logit of that class), all other logits 0."""
    logits = torch.zeros(len(rows), len(classes))
    for i, (_, said, logit) in enumerate(rows):
        logits[i, said] = logit
    return Predictions(logits, torch.tensor([row[0] for row in rows]), classes)


# ---------------------------------------------------------------- one forward


class Counting(nn.Module):
    """Says the class by an image's mean level, and counts how often it sees each image."""

    input_size, mean, std = 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: Counter[int] = Counter()
        self.modes: set[bool] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = x.mean((1, 2, 3)) * 255
        self.seen.update(level.round().int().tolist())
        self.modes.add(self.training)
        return -(self.scale * (level[:, None] - torch.tensor([0.0, 20.0, 40.0, 60.0])).abs())


@pytest.fixture
def levels() -> ImageSet:
    """23 flat images, the i-th of grey level i."""
    grey = torch.arange(23, dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(grey.expand(-1, 3, 8, 8).contiguous(), torch.arange(23) % 4, CLASSES, "levels")


@pytest.mark.parametrize("chunk", [1, 7, 23, 100])
def test_each_image_passes_exactly_once(levels, chunk):
    model = Counting()
    found = evaluate.predict(model, levels, chunk)
    assert model.seen == Counter(range(23))
    assert found.logits.shape == (23, 4) and found.logits.dtype == torch.float32
    assert torch.equal(found.labels, levels.labels) and found.classes == CLASSES
    torch.testing.assert_close(found.logits[:, 0], -torch.arange(23.0), atol=1e-4, rtol=0)


def test_metrics_need_no_further_forward(levels):
    model = Counting()
    found = evaluate.predict(model, levels)
    evaluate.metrics(found), evaluate.intervals(found, n=3), evaluate.confusion(found)
    evaluate.compare(found, found, n=3), evaluate.reliability(found), evaluate.typical(found)
    assert model.seen.total() == 23


def test_predicts_in_eval_mode_without_a_graph(levels):
    model = Counting().train()
    assert not evaluate.predict(model, levels).logits.requires_grad
    assert model.modes == {False}


# ---------------------------------------------------------------- metrics


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_scikit_learn(seed):
    p = predictions(seed=seed)
    y, said = p.labels.numpy(), p.logits.argmax(1).numpy()
    probabilities = torch.softmax(p.logits.double(), 1).numpy()
    macro = dict(average="macro")
    expected = {
        "accuracy": sk.accuracy_score(y, said),
        "precision": sk.precision_score(y, said, **macro),
        "recall": sk.recall_score(y, said, **macro),
        "f1": sk.f1_score(y, said, **macro),
        "roc_auc": sk.roc_auc_score(y, probabilities, multi_class="ovr", **macro),
    }
    found = evaluate.metrics(p)
    assert found.keys() == expected.keys() | {"ece"}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert 0.3 < found["accuracy"] < 0.9, "the example is neither hopeless nor perfect"
    np.testing.assert_array_equal(evaluate.confusion(p), sk.confusion_matrix(y, said))
    by_class = sk.recall_score(y, said, average=None)
    np.testing.assert_allclose(evaluate.class_accuracy(p), by_class)


def test_probabilities_and_titles():
    p = made([(0, 0, 2.0), (1, 2, 3.0)])
    torch.testing.assert_close(p.probabilities.sum(1), torch.ones(2))
    assert p.predicted.tolist() == [0, 2] and p.correct.tolist() == [True, False]
    sure = np.exp([2, 3]) / (np.exp([2, 3]) + 3)
    np.testing.assert_allclose(p.confidence, sure, rtol=1e-6)
    assert p.title(0) == f"ant {sure[0]:.0%}"
    assert p.title(1) == f"cat {sure[1]:.0%} (is bee)"


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_calibration_error_by_hand(bins):
    p = predictions(300)
    total, rows = 0.0, []
    for k in range(bins):
        inside = [
            i
            for i, c in enumerate(p.confidence.tolist())
            if k / bins <= c < (k + 1) / bins or (k == bins - 1 and c >= 1)
        ]
        if inside:
            accuracy = sum(bool(p.correct[i]) for i in inside) / len(inside)
            confidence = sum(float(p.confidence[i]) for i in inside) / len(inside)
            rows.append((confidence, accuracy, len(inside) / 300))
            total += len(inside) / 300 * abs(accuracy - confidence)
    confidence, accuracy, share, error = evaluate.reliability(p, bins)
    np.testing.assert_allclose(np.transpose([confidence, accuracy, share]), rows, atol=1e-9)
    assert error == pytest.approx(total, abs=1e-9)
    assert share.sum() == pytest.approx(1)


def test_calibration_error_of_known_cases():
    boasting = made([(0, 0, 50.0), (1, 0, 50.0)])  # certain, and right every second time
    assert evaluate.reliability(boasting)[3] == pytest.approx(0.5, abs=1e-6)
    assert evaluate.metrics(boasting)["ece"] == pytest.approx(0.5, abs=1e-6)
    honest = made([(0, 0, 50.0), (1, 1, 50.0)])
    assert evaluate.reliability(honest)[3] == pytest.approx(0, abs=1e-6)


def test_confused_pairs_count_both_directions():
    p = made([(0, 1, 1.0), (1, 0, 1.0), (1, 0, 1.0), (2, 3, 1.0), (3, 3, 1.0)])
    assert evaluate.confused_pairs(p) == [("bee", "ant", 3), ("dog", "cat", 1)]


def test_majority_is_the_floor():
    assert evaluate.majority(torch.tensor([2, 2, 2, 0])) == 0.75


# ---------------------------------------------------------------- bootstrap


@pytest.fixture(scope="module")
def bounds() -> dict[str, tuple[float, float]]:
    return evaluate.intervals(predictions(), n=150)


def test_intervals_hold_the_value(bounds):
    value = evaluate.metrics(predictions())
    assert bounds.keys() == value.keys() - {"ece"}
    for name, (low, high) in bounds.items():
        assert 0 <= low < value[name] < high <= 1, name


def test_intervals_repeat_with_their_seed():
    p = predictions(40)
    first = evaluate.intervals(p, n=10)
    assert first == evaluate.intervals(p, n=10) != evaluate.intervals(p, n=10, seed=1)


def test_intervals_cover_what_they_promise(bounds):
    """The bootstrap of a share has the binomial standard error, which is known."""
    accuracy = float(predictions().correct.float().mean())
    half = 1.96 * (accuracy * (1 - accuracy) / 200) ** 0.5
    low, high = bounds["accuracy"]
    assert (high - low) / 2 == pytest.approx(half, rel=0.25)
    assert (high + low) / 2 == pytest.approx(accuracy, abs=half / 4)


# ---------------------------------------------------------------- two models


def pair(n: int = 300) -> tuple[Predictions, Predictions]:
    a = predictions(n, skill=1.8)
    worse = predictions(n, skill=1.2).logits.roll(1, 1) * 0.5 + a.logits
    return a, Predictions(worse, a.labels, CLASSES)


def test_mcnemar_is_the_exact_binomial_test():
    a, b = pair()
    said_a, said_b = (p.logits.argmax(1) == p.labels for p in (a, b))
    only_a, only_b = int((said_a & ~said_b).sum()), int((said_b & ~said_a).sum())
    found = evaluate.compare(a, b)
    assert only_a > only_b > 0, "the example has disagreements of both kinds"
    assert (found.only_a, found.only_b) == (only_a, only_b)
    expected = binomtest(min(only_a, only_b), only_a + only_b, 0.5).pvalue
    assert found.p_value == pytest.approx(expected)
    assert found.difference == pytest.approx((only_a - only_b) / len(a.labels))


def test_mcnemar_by_hand():
    """Five images that only a gets right, none that only b does: 2 * 0.5^5."""
    a, b = made([(0, 0, 1.0)] * 8), made([(0, 1, 1.0)] * 5 + [(0, 0, 1.0)] * 3)
    found = evaluate.compare(a, b)
    assert (found.only_a, found.only_b, found.p_value) == (5, 0, pytest.approx(2 * 0.5**5))
    assert evaluate.compare(b, a).difference == -found.difference == -5 / 8


def test_paired_bootstrap():
    a, b = pair()
    found = evaluate.compare(a, b, n=1000)
    assert found == evaluate.compare(a, b, n=1000)
    assert evaluate.compare(a, b, n=3) != evaluate.compare(a, b, n=3, seed=1)
    assert found.low < found.difference < found.high
    paired = (a.correct.float() - b.correct.float()).numpy()
    half = 1.96 * paired.std() / len(paired) ** 0.5  # narrower than of two independent samples
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)


def test_a_model_does_not_differ_from_itself():
    a = predictions()
    found = evaluate.compare(a, a)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_other_images_cannot_be_compared():
    with pytest.raises(ValueError, match="different images: predict both on the same image set"):
        evaluate.compare(predictions(seed=0), predictions(seed=1))
    with pytest.raises(ValueError, match="different images"):
        evaluate.compare(predictions(10), predictions(11))


# ---------------------------------------------------------------- images picked by rule


def test_most_confident_mistakes():
    p = made([(0, 0, 9.0), (0, 1, 2.0), (1, 2, 5.0), (2, 0, 3.0), (3, 3, 1.0), (3, 0, 2.0)])
    assert evaluate.confident_mistakes(p, 3) == [2, 3, 1]  # equals keep their order
    assert evaluate.confident_mistakes(p, 99) == [2, 3, 1, 5]
    assert evaluate.confident_mistakes(made([(0, 0, 1.0)]), 5) == []


def test_typical_is_the_median_of_each_class():
    ants = [(0, 0, 1.0), (0, 0, 9.0), (0, 0, 4.0), (0, 2, 7.0)]
    cats, dogs = [(2, 2, 3.0), (2, 2, 5.0)], [(3, 1, 8.0), (3, 1, 2.0), (3, 1, 5.0)]
    p = made(ants + cats + dogs)
    assert evaluate.typical(p) == [2, 5]  # of two, the more confident; bee and dog have none right
    assert evaluate.typical(p, correct=False) == [3, 8]
    shuffled = Predictions(p.logits.flip(0), p.labels.flip(0), p.classes)
    assert [8 - i for i in evaluate.typical(shuffled)] == [2, 5]  # the order does not matter


# ---------------------------------------------------------------- edges


def test_a_class_without_test_images():
    p = predictions(120)
    keep = p.labels != 3
    p = Predictions(p.logits[keep], p.labels[keep], p.classes)
    y, said = p.labels.numpy(), p.predicted.numpy()
    present = dict(labels=range(3), average="macro", zero_division=0)
    found = evaluate.metrics(p)
    assert found["recall"] == pytest.approx(sk.recall_score(y, said, **present))
    assert found["precision"] == pytest.approx(sk.precision_score(y, said, **present))
    assert found["f1"] == pytest.approx(sk.f1_score(y, said, **present))
    areas = [sk.roc_auc_score(y == c, p.probabilities[:, c]) for c in range(3)]
    assert found["roc_auc"] == pytest.approx(np.mean(areas))
    assert evaluate.confusion(p).shape == (4, 4) and evaluate.confusion(p)[3].sum() == 0
    assert np.isnan(evaluate.class_accuracy(p)).tolist() == [False, False, False, True]
    assert all(np.isfinite(bound) for pair in evaluate.intervals(p, n=5).values() for bound in pair)


def test_always_the_same_answer():
    p = made([(i % 4, 1, 3.0) for i in range(40)])
    found = evaluate.metrics(p)
    expected = {"accuracy": 0.25, "precision": 0.0625, "recall": 0.25, "f1": 0.1, "roc_auc": 0.5}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert evaluate.typical(p) == [21] and len(evaluate.typical(p, correct=False)) == 3
    assert evaluate.confusion(p)[:, 1].tolist() == [10, 10, 10, 10]


@pytest.mark.filterwarnings("error")
def test_one_label_only_has_no_roc_auc_but_the_rest():
    """No negative example, no area: said by NaN, with no warning from inside NumPy."""
    p = made([(0, 0, 3.0), (0, 1, 2.0), (0, 0, 1.0)])
    found = evaluate.metrics(p)
    assert np.isnan(found["roc_auc"])
    assert found["accuracy"] == pytest.approx(2 / 3)
    low, high = evaluate.intervals(p, n=20)["accuracy"]
    assert 0 <= low <= high <= 1


def test_no_images_is_one_sentence():
    with pytest.raises(ValueError, match="There is no image to evaluate: give a set"):
        Predictions(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), CLASSES)


@pytest.mark.parametrize("shape", [(5, 3), (5, 5), (4, 4)])
def test_logits_of_another_set_are_one_sentence(shape):
    with pytest.raises(ValueError, match=r"5 images of 4 classes need \(5, 4\): evaluate"):
        Predictions(torch.zeros(shape), torch.zeros(5, dtype=torch.int64), CLASSES)


# ---------------------------------------------------------------- two classes, few images


@pytest.mark.parametrize("seed", range(3))
def test_two_classes(seed):
    p = predictions(60, seed=seed, classes=("cat", "dog"))
    y, answers, scores = p.labels.numpy(), p.predicted.numpy(), p.probabilities[:, 1].numpy()
    found = evaluate.metrics(p)
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(y, scores))
    assert found["f1"] == pytest.approx(sk.f1_score(y, answers, average="macro"))
    for name, (low, high) in evaluate.intervals(p, n=200).items():
        assert 0 <= low <= found[name] <= high <= 1


def sets_of_labels() -> dict[str, list[int]]:
    """Label lists of small test sets, of four classes unless more are named."""
    return {
        "a class without an image": [0, 0, 1, 1, 3, 3],
        "one image each": [0, 1, 2, 3],
        "two images": [0, 3],
        "unbalanced": [0] * 60 + [1] * 3 + [2],
        "102 classes": [c for c in range(102) if c % 3],
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", sets_of_labels())
def test_a_perfect_model_scores_one(name):
    labels = sets_of_labels()[name]
    classes = CLASSES if max(labels) < 4 else tuple(f"class {k}" for k in range(102))
    p = made([(c, c, 9.0) for c in labels], classes)
    found = evaluate.metrics(p)
    assert {found[m] for m in evaluate.SCORES} == {1.0}
    for metric, (low, high) in evaluate.intervals(p, n=100).items():
        assert 0 <= low <= found[metric] <= high, metric
    assert evaluate.intervals(p, n=100)["accuracy"][0] < 0.99, "few images prove little"
    assert np.nanmin(evaluate.class_accuracy(p)) == 1 and not evaluate.confused_pairs(p)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", sets_of_labels())
@pytest.mark.parametrize("seed", range(5))
def test_intervals_hold_the_value_of_any_small_set(name, seed):
    labels = torch.tensor(sets_of_labels()[name])
    classes = CLASSES if int(labels.max()) < 4 else tuple(f"class {k}" for k in range(102))
    generator = torch.Generator().manual_seed(seed)
    p = Predictions(torch.randn(len(labels), len(classes), generator=generator), labels, classes)
    value = evaluate.metrics(p)
    for metric, (low, high) in evaluate.intervals(p, n=50, seed=seed).items():
        assert 0 <= low <= value[metric] <= high <= 1, metric


def test_areas_equal_scikit_learns_with_ties_and_weights():
    rng = np.random.default_rng(0)
    positive, score = rng.random(80) < 0.3, rng.integers(0, 9, 80) / 9
    weights = rng.multinomial(80, [1 / 80] * 80, 5)
    for row, area in zip(weights, scoring.auc(positive, score, weights), strict=True):
        drawn = np.repeat(np.arange(80), row)
        assert area == pytest.approx(sk.roc_auc_score(positive[drawn], score[drawn]))


def test_one_image_says_nothing_about_two_models():
    found = evaluate.compare(made([(0, 0, 1.0)]), made([(0, 1, 1.0)]))
    assert (found.difference, found.low, found.high, found.p_value) == (1, -1, 1, 1)


# ---------------------------------------------------------------- temperature


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_temperature_is_found_again(true):
    """Labels are drawn from the model's own probabilities, then its logits are scaled."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 4, generator=generator)
    labels = logits.softmax(1).multinomial(1, generator=generator).flatten()
    p = Predictions(logits * true, labels, CLASSES)
    found = evaluate.temperature(p)
    assert found == pytest.approx(true, rel=0.1)
    mended = p.at_temperature(found)
    assert torch.equal(mended.predicted, p.predicted)
    assert evaluate.metrics(mended)["ece"] < 0.03
    if true != 1:
        assert evaluate.metrics(p)["ece"] > 0.05


@pytest.mark.parametrize("rows", [[(0, 0, 1.0)], [(0, 0, 1.0), (1, 1, 1.0)], [(0, 1, 5.0)]])
def test_temperature_of_a_few_images_stays_moderate(rows):
    assert 0.2 < evaluate.temperature(made(rows)) < 5
