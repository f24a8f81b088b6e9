"""The transfer study: its subsets, its arithmetic, and that a stopped study goes on."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from utils import data, models, train
from utils.tests.train.conftest import images as drawn
from utils.tests.train.conftest import mini
from utils.train import Recipe, arithmetic, chapter_models, recipes, transfer

QUICK = Recipe(1, "adamw", 1e-3, 0.01, batch=8)


def images(n: int, seed: int = 0) -> data.ImageSet:
    return replace(drawn(n, seed), source="CIFAR-10 (a copy)")


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(transfer, "WEIGHTS", tmp_path)
    monkeypatch.setattr(chapter_models, "RUNS", tmp_path / "runs")


@pytest.fixture
def small(monkeypatch):
    """A study of two sizes and two seeds on made-up images."""
    parts = data.Splits(images(40), images(20, 1), images(30, 2), {})
    monkeypatch.setattr(data, "splits", lambda chosen: parts)
    monkeypatch.setattr(models, "build", lambda arch, n, weights: mini(n))
    monkeypatch.setattr(models, "card", lambda arch, variant: {"sha256": "of the weights"})
    monkeypatch.setattr(transfer, "SIZES", (20, 40))
    monkeypatch.setattr(transfer, "SEEDS", (0, 1))
    both = {("vit_mini", method): QUICK for method in ("scratch", "finetune")}
    monkeypatch.setattr(transfer, "TRANSFER", both)
    return parts


def test_subsets_are_balanced_and_drawn_by_the_seed():
    whole = images(100)
    few, same, other = (transfer.subset(whole, 30, seed) for seed in (0, 0, 1))
    assert set(few.class_counts().values()) == {3}
    assert torch.equal(few.images, same.images) and not torch.equal(few.images, other.images)
    assert transfer.subset(whole, 100, 0) is whole


def test_fewer_images_are_shown_more_often():
    passes = [transfer.recipe_for("vit_mini", "finetune", n, 2) for n in transfer.SIZES]
    assert passes[-1] == replace(recipes.TRANSFER["vit_mini", "finetune"], seed=2)
    assert all(a.epochs > b.epochs for a, b in pairwise(passes))
    seen = [recipe.epochs * n for recipe, n in zip(passes, transfer.SIZES, strict=True)]
    assert seen == sorted(seen)


def test_the_table_is_filled_once_and_a_stopped_study_goes_on(small, monkeypatch):
    accuracy, calls = transfer.accuracy, []

    def dies(*cell):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(cell[:4])
        return accuracy(*cell)

    monkeypatch.setattr(transfer, "accuracy", dies)
    with pytest.raises(KeyboardInterrupt):
        transfer.study("vit_mini", "the line that was typed", sizes=(20, 40))
    kept = json.loads(transfer.result_file("vit_mini").read_text())
    assert [row["seeds"] for row in transfer.summary(kept)] == [2, 2, 1]
    monkeypatch.setattr(
        transfer, "accuracy", lambda *cell: calls.append(cell[:4]) or accuracy(*cell)
    )
    facts = transfer.study("vit_mini", "the line that was typed", sizes=(20, 40))
    assert len(calls) == len(set(calls)) == 12
    assert facts["accuracy"]["scratch"]["20"]["0"] == kept["accuracy"]["scratch"]["20"]["0"]
    assert facts == json.loads(transfer.result_file("vit_mini").read_text())
    assert facts["test_images"] == 30 and facts["device"].startswith("CPU")
    calls.clear()
    monkeypatch.setattr(models, "card", lambda arch, variant: {"sha256": "of other weights"})
    transfer.study("vit_mini", "the line that was typed", sizes=(20,))
    assert len(calls) == 6  # other weights: afresh


def test_probe_and_fine_tuning_start_from_the_imagenet_weights_and_scratch_does_not(
    small, monkeypatch
):
    built = []
    monkeypatch.setattr(models, "build", lambda arch, n, weights: built.append(weights) or mini(n))
    for method in transfer.METHODS:
        assert 0 <= transfer.accuracy("vit_mini", method, 20, 0, small) <= 1
    assert built == ["none", "course:imagenet", "course:imagenet"]
    with pytest.raises(
        ValueError, match="There is no method 'guess': use scratch, probe, finetune"
    ):
        transfer.accuracy("vit_mini", "guess", 20, 0, small)


def test_the_validation_set_is_no_larger_than_the_training_set(small, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        transfer, "fit", lambda m, a, b, recipe, folder: sizes.append((len(a), len(b)))
    )
    transfer.train_cell("vit_mini", "finetune", 10, 0, small)
    transfer.train_cell("vit_mini", "finetune", 40, 0, small)
    assert sizes == [(10, 10), (40, 20)]


def test_the_summary_says_how_many_seeds_a_cell_has():
    cells = {"probe": {"50": {"0": 0.5, "1": 0.7}, "200": {}}, "scratch": {"50": {"0": 0.25}}}
    first, second = transfer.summary({"accuracy": cells})
    spread = dict(mean=pytest.approx(0.6), lowest=0.5, highest=0.7, seeds=2)
    assert first == dict(method="probe", images=50) | spread
    assert second["seeds"] == 1 and second["mean"] == second["lowest"] == second["highest"] == 0.25


def test_quick_arithmetic_leaves_the_model_as_it_was(monkeypatch):
    model = mini()
    before = [block.attn.fused_attn for block in model.blocks]
    monkeypatch.setattr(arithmetic, "bfloat16_helps", lambda where: True)
    with arithmetic.quick_arithmetic(model):
        assert not any(block.attn.fused_attn for block in model.blocks)
        assert torch.is_autocast_enabled("cpu") and not torch.is_autocast_cache_enabled()
    assert [block.attn.fused_attn for block in model.blocks] == before
    assert not torch.is_autocast_enabled("cpu")


def around(mean: float) -> dict[str, float]:
    """The accuracies of three seeds."""
    return {"0": mean - 0.01, "1": mean + 0.01, "2": mean}


STUDY = {
    "accuracy": {
        "scratch": {"50": around(0.16), "4050": around(0.41)},
        "probe": {"50": around(0.42), "4050": around(0.70)},
        "finetune": {"50": around(0.44), "4050": around(0.77)},
    }
}


def test_the_finding_is_made_from_the_numbers():
    text = transfer.finding(STUDY)
    assert "on 4,050 images pretraining is worth +36 points" in text
    assert "(41% from scratch, 77% fine-tuned; the ranges over 3 seeds do not overlap)" in text
    assert "on 50 images does at least as well as training from scratch on 4,050." in text
    assert "changes that by +7 points" in text
    turned = {"accuracy": STUDY["accuracy"] | {"scratch": STUDY["accuracy"]["finetune"]}}
    text = transfer.finding(turned)
    assert "worth +0 points" in text and "seeds overlap" in text
    assert "On 50 images training from scratch does better than a linear probe." in text
    assert "not known yet" in transfer.finding({"accuracy": {"scratch": {"50": {"0": 0.2}}}})


def test_a_study_that_was_not_made_is_none(tmp_path):
    assert train.load_study("vit_mini") is None
    transfer.result_file("vit_mini").write_text(json.dumps(STUDY))
    assert train.load_study("vit_mini") == STUDY
