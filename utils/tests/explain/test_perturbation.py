"""Taking parts away: against captum, hand-made games, and one image at a time."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from captum.attr import Occlusion, ShapleyValues
from torch import nn

from utils import models
from utils.explain import perturbation
from utils.models import Question
from utils.tests.conftest import tiny

METHODS = {
    "occlusion": dict(grid=3, overlap=2),
    "rise": dict(masks=20, grid=3),
    "shapley": dict(grid=2),
    "shapley sampled": dict(grid=4, permutations=4),
}


def run(name: str, *args, **options) -> torch.Tensor:
    return getattr(perturbation, name.split()[0])(*args, **(METHODS[name] | options))


class Cells(nn.Module):
    """A game on a 3 x 3 grid: logits are any function of the nine cells' mean brightness."""

    input_size, mean, std = 9, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self, game):
        super().__init__()
        self.game, self.widest = game, 0
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.widest = max(self.widest, len(x))
        assert not torch.is_grad_enabled()
        return self.game(nn.functional.avg_pool2d(x.mean(1, keepdim=True), 3).flatten(1))


def inputs(n: int, size: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    model = tiny("vit", classes=10)
    nn.init.normal_(model.head.weight)
    return model


def two_logits(cell: torch.Tensor) -> torch.Tensor:
    """Cells 0 and 1 play the same part, cell 8 plays none."""
    score = cell[:, 0] * cell[:, 1] * cell[:, 4] + cell[:, 2:8].pow(2).sum(1)
    return torch.stack([score, cell.sum(1)], 1)


def test_shapley_is_efficient_symmetric_and_gives_nothing_to_a_null_player():
    model, x = Cells(two_logits).double(), inputs(4, 9).double()
    x[..., :3, :3] = x[..., :3, 3:6]  # cells 0 and 1 hold the same pixels
    result = perturbation.shapley_values(model, x, Question(0), batch=64)
    values = result.values.flatten(1)
    torch.testing.assert_close(values.sum(1), result.whole - result.empty, rtol=0, atol=1e-5)
    torch.testing.assert_close(values[:, 0], values[:, 1], rtol=0, atol=1e-5)
    assert values[:, 8].abs().max() < 1e-5 and values[:, 2].abs().min() > 1e-5
    assert result.error.abs().max() == 0


def test_shapley_is_efficient_on_a_real_network(vit):
    result = perturbation.shapley_values(vit, inputs(2), Question(), batch=256)
    with torch.no_grad():
        whole, empty = vit(inputs(2)), vit(torch.zeros(2, 3, 32, 32))
    rise = whole.amax(1) - empty[torch.arange(2), whole.argmax(1)]
    torch.testing.assert_close(result.values.sum((1, 2)).float(), rise, rtol=0, atol=1e-5)


def test_shapley_equals_captum(vit):
    x, away = inputs(2), torch.zeros(2, 3, 32, 32)
    ours = perturbation.shapley(vit, x, Question(3), batch=16, grid=2)
    place = perturbation.cells(32, 32, 2)[None, None].repeat(1, 3, 1, 1)
    theirs = ShapleyValues(vit).attribute(
        x, away, target=3, feature_mask=place, perturbations_per_eval=8
    )[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("overlap", [1, 2])
def test_occlusion_equals_captum(vit, overlap):
    x = inputs(2)
    ours = perturbation.occlusion(vit, x, Question(3), batch=8, grid=4, overlap=overlap)
    theirs = Occlusion(vit).attribute(
        x, (3, 8, 8), strides=(3, 8 // overlap, 8 // overlap), target=3, perturbations_per_eval=5
    )[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_rise_is_the_papers_sum_without_its_mean(vit):
    x, n = inputs(1), 30
    masks = torch.cat(list(perturbation._rise_masks((32, 32), n, 5, 0.4, 3, 7)))
    assert masks.shape == (n, 32, 32) and masks.min() >= 0 and masks.max() <= 1
    with torch.no_grad():
        scores = torch.stack([vit(x * mask)[0, 2] for mask in masks])
    paper = (scores[:, None, None] * masks).sum(0) / (n * 0.4)
    constant = scores.mean() * masks.sum(0) / (n * 0.4)
    ours = perturbation.rise(vit, x, Question(2), batch=9, masks=n, grid=5, keep=0.4, seed=3)
    torch.testing.assert_close(ours[0], paper - constant, rtol=0, atol=1e-5)


def test_rise_finds_the_one_cell_that_counts():
    model = Cells(lambda cell: torch.stack([cell[:, 4], -cell[:, 4]], 1))
    heat = perturbation.rise(model, torch.ones(1, 3, 9, 9), Question(0), batch=32, masks=256)
    assert divmod(int(heat[0].argmax()), 9) in [(i, j) for i in (3, 4, 5) for j in (3, 4, 5)]


def test_sampled_shapley_agrees_with_the_exact_one_within_its_error(vit):
    x, options = inputs(3), dict(batch=256, grid=3)
    exact = perturbation.shapley_values(vit, x, Question(0), **options)
    sampled = perturbation.shapley_values(vit, x, Question(0), permutations=16, **options)
    torch.testing.assert_close(sampled.values.sum((1, 2)), exact.values.sum((1, 2)))
    off = ((sampled.values - exact.values) / sampled.error).abs()
    assert 0.3 < off.square().mean().sqrt() < 2  # errors of about one standard error
    few = perturbation.shapley_values(vit, x, Question(0), permutations=4, **options)
    assert sampled.error.mean() < few.error.mean()


@pytest.mark.parametrize("name", METHODS)
def test_batch_equals_singles_and_any_batch_size(vit, name):
    x, targets = inputs(3), torch.tensor([1, 5, 2])
    together = run(name, vit, x, Question(targets), batch=64)
    assert together.shape == (3, 32, 32) and together.dtype == x.dtype
    assert not together.requires_grad
    small = run(name, vit, x, Question(targets), batch=2)
    torch.testing.assert_close(together, small, rtol=1e-4, atol=2e-6)
    for i in range(3):
        alone = run(name, vit, x[i : i + 1], Question(int(targets[i])), batch=5)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", ["occlusion", "rise", "shapley"])
def test_against_is_the_difference_of_two_maps_and_turns_its_sign(vit, name):
    x = inputs(2).double()
    model = copy.deepcopy(vit).double()
    difference, cat, dog, turned = (
        run(name, model, x, question, batch=64)
        for question in (Question(3, 5), Question(3), Question(5), Question(5, 3))
    )
    torch.testing.assert_close(difference, cat - dog, rtol=0, atol=1e-10)
    torch.testing.assert_close(difference, -turned, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_memory_is_bounded_and_the_model_left_alone(name):
    model = Cells(two_logits).train()
    run(name, model, inputs(5, 9), Question(), batch=4)
    assert 0 < model.widest <= 4 and model.training


def test_what_away_means_changes_the_picture_that_is_left(vit):
    x = inputs(2)
    assert perturbation.filled(vit, x, "mean").abs().max() == 0
    black = perturbation.filled(vit, x, "black")
    torch.testing.assert_close(black, models.prepare(vit, torch.zeros(2, 3, 32, 32).byte()))
    assert perturbation.filled(vit, x, "blur").std() < x.std() / 2
    other = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    prepared = models.prepare(vit, other[None])[0]
    torch.testing.assert_close(perturbation.filled(vit, x, other)[1], prepared)
    maps = [
        perturbation.occlusion(vit, x, Question(0), batch=64, grid=2, fill=fill)
        for fill in ("mean", "black", "blur", other)
    ]
    assert all(not torch.allclose(a, b) for a, b in pairwise(maps))


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("occlusion", dict(grid=33), r"grid of 33 .* 32 x 32 .* 1 to 32"),
        ("occlusion", dict(overlap=0), "overlap must be at least 1"),
        ("occlusion", dict(fill="noise"), "no fill 'noise': use one of mean, black, blur"),
        ("shapley", dict(fill=torch.zeros(2, 2)), r"uint8 \(3, h, w\)"),
        ("rise", dict(keep=1.0), "between 0 and 1"),
        ("shapley sampled", dict(permutations=3), "even number of permutations"),
        ("shapley", dict(batch=0), "batch must be at least 1"),
    ],
)
def test_bad_options_are_refused(vit, name, options, message):
    with pytest.raises(ValueError, match=message):
        run(name, vit, inputs(1), Question(), **({"batch": 8} | options))
    with pytest.raises(ValueError, match=r"2\^16 forward passes"):
        perturbation.shapley_values(vit, inputs(1), Question(), batch=8, grid=4)


def test_inputs_that_are_not_square():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    x = torch.randn(2, 3, 20, 31)
    for name in METHODS:
        assert run(name, model, x, Question(1), batch=32).shape == (2, 20, 31)
