"""Metrics of explanations: right maps score high, wrong ones low, empty ones not at all; peers agree."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import nn

from utils import data, explain, models
from utils.data import shapes
from utils.trust import faithfulness, localisation, sanity, single_deletion

SIDE = 16


class Tiny(nn.Sequential):
    """A CNN of three layers that takes pictures as they are."""

    mean, std = (0.5,) * 3, (0.5,) * 3

    def __init__(self, side: int = SIDE) -> None:
        first, last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * side**2, 10, bias=False)
        super().__init__(first, nn.Tanh(), nn.Flatten(), last)
        self.input_size = side


class Weighted(nn.Module):
    """A linear model: the logit of class 0 is a weighted sum of pixels, that of class 1 is zero."""

    input_size, mean, std = SIDE, (0.0,) * 3, (1.0,) * 3

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        weights = 0.1 * torch.randn(3, SIDE, SIDE, generator=generator)
        important = torch.rand(SIDE, SIDE, generator=generator) < 0.1
        self.weights = nn.Parameter(weights * (0.2 + 5 * important))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = (x * self.weights).sum((1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], 1)


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny().eval()


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """Twelve pictures of 16 pixels and their masks."""
    return shapes.draw(shapes.balanced_labels(12, 0), size=SIDE, seed=3)


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- ground truth


@pytest.mark.parametrize("name", localisation.LOCALISATION)
def test_right_maps_win_and_inverted_maps_lose(drawn, name):
    metric, masks = localisation.LOCALISATION[name], drawn[1]
    random = metric(noise(12), masks).mean()
    assert metric(masks.float(), masks).tolist() == pytest.approx([1.0] * 12)
    assert metric(1 - masks.float(), masks).mean() < random < 1


@pytest.mark.parametrize("name", localisation.LOCALISATION)
def test_maps_and_masks_that_say_nothing_are_refused(drawn, name):
    metric, masks, maps = localisation.LOCALISATION[name], drawn[1], noise(12)
    maps[3] = 0.5
    with pytest.raises(ValueError, match="Heatmap 3 of 12 is constant"):
        metric(maps, masks)
    maps[3, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        metric(maps, masks)
    with pytest.raises(ValueError, match="empty or covers"):
        metric(noise(12), torch.zeros_like(masks))
    with pytest.raises(ValueError, match="Masks must be bool"):
        metric(noise(12), masks.float())


def test_auc_is_the_area_under_the_roc_curve_also_with_ties(drawn):
    masks = drawn[1]
    coarse = (noise(12) * 4).floor()
    expected = [roc_auc_score(m.flatten(), h.flatten()) for m, h in zip(masks, coarse, strict=True)]
    assert localisation.auc(coarse, masks).tolist() == pytest.approx(expected, abs=1e-6)


def test_ties_count_with_the_share_that_is_right():
    masks = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    masks[0, :4] = True
    maps = torch.zeros(1, SIDE, SIDE)
    maps[0, :8] = 1.0  # twice the mask: half of the tied pixels are right, half of them fit in
    assert localisation.pointing_game(maps, masks).item() == 0.5
    assert localisation.iou(maps, masks).item() == pytest.approx(32 / (128 - 32))
    assert localisation.mass_inside(maps, masks).item() == 0.5
    with pytest.raises(ValueError, match="without a sign"):
        localisation.mass_inside(-maps, masks)


def test_a_map_without_evidence_becomes_noise_and_is_counted():
    maps = torch.stack([noise(1)[0], -noise(1)[0], torch.full((SIDE, SIDE), 2.0)])
    found, empty = localisation.evidence(maps)
    assert empty.tolist() == [False, True, True]
    assert torch.equal(found[0], maps[0])
    assert localisation.check_maps(found).min() >= 0


def test_reference_maps_know_the_picture_but_no_model(drawn):
    maps = localisation.reference_maps(drawn[0])
    assert all(localisation.check_maps(m).shape == (12, SIDE, SIDE) for m in maps.values())
    assert divmod(int(maps["centre"][0].argmax()), SIDE) in {(7, 7), (7, 8), (8, 7), (8, 8)}
    square = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    square[..., 4:10, 6:12] = 200  # a bright square on black: each reference but one finds it
    inside = square[:, 0] > 0
    outline = inside ^ sanity.shifted(inside, 1, 0) | inside ^ sanity.shifted(inside, 0, 1)
    known = localisation.reference_maps(square)
    assert localisation.auc(known["edges"], outline) > 0.8
    assert localisation.auc(known["brightness"], inside) == 1
    assert localisation.auc(known["colour contrast"], inside) == 1
    assert localisation.auc(known["random"], inside) < 0.8


# ---------------------------------------------------------------- faithfulness


@pytest.mark.parametrize("kind", faithfulness.REPLACEMENTS)
def test_the_true_contributions_delete_and_insert_best(drawn, kind):
    model, images = Weighted(), drawn[0]
    targets = torch.zeros(12, dtype=torch.int64)
    other = faithfulness.replacement(images, kind).float()
    true = ((images.float() - other) / 255 * model.weights.detach()).sum(1)
    maps = {"true": true, "random": noise(12), "inverted": -true}
    for insert, sign in ((False, -1), (True, 1)):
        curves = faithfulness.curves(model, images, maps, targets, insert, kind, steps=4)
        areas = {name: sign * faithfulness.area(curve).mean() for name, curve in curves.items()}
        assert areas["true"] > areas["random"] > areas["inverted"]
        ends = curves["true"][:, [-1, 0] if insert else [0, -1]]
        logits = [model(x.float() / 255) for x in (images, other)]
        expected = torch.stack([x.softmax(1)[:, 0] for x in logits], 1)
        torch.testing.assert_close(ends, expected.detach(), rtol=1e-4, atol=1e-4)


def test_curves_are_the_same_in_any_chunk(tiny, drawn):
    targets = torch.arange(12) % 10
    found = [
        faithfulness.curves(tiny, drawn[0], {"m": noise(12)}, targets, steps=3, chunk=c)["m"]
        for c in (2, 64)
    ]
    torch.testing.assert_close(*found)


def test_faithfulness_refuses_what_it_cannot_use(tiny, drawn):
    flat, targets = {"flat": torch.zeros(12, SIDE, SIDE)}, torch.zeros(12, dtype=torch.int64)
    with pytest.raises(ValueError, match="constant"):
        faithfulness.curves(tiny, drawn[0], flat, targets)
    with pytest.raises(ValueError, match="no replacement 'grey'"):
        faithfulness.replacement(drawn[0], "grey")


def test_ties_are_removed_in_random_order():
    maps = torch.zeros(1, SIDE, SIDE)
    maps[0, 5, 5] = 1.0
    ranks = faithfulness.order(maps)[0]
    assert ranks[5 * SIDE + 5] == 0 and sorted(ranks.tolist()) == list(range(SIDE**2))
    upper = ranks[: SIDE**2 // 2].double().mean()  # by position it would be a quarter of all
    assert 0.4 < upper / SIDE**2 < 0.6


def test_area_and_agreement_on_known_numbers():
    areas = faithfulness.area(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.5, 0.0]]))
    assert areas.tolist() == [1.0, 0.5]
    scores = {"a": dict(x=1, y=2, z=3), "b": dict(z=30, y=20, x=10), "c": dict(x=3, y=2, z=1)}
    names, tau = faithfulness.agreement(scores)
    assert names == ["a", "b", "c"]
    assert tau.tolist() == [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
    with pytest.raises(ValueError, match="same methods"):
        faithfulness.agreement({"a": dict(x=1, y=2), "b": dict(x=1)})
    with pytest.raises(ValueError, match="same score"):
        faithfulness.agreement({"a": dict(x=1, y=2), "b": dict(x=1, y=1)})


# ---------------------------------------------------------------- cells, one at a time


class Additive(Weighted):
    """Weighted, on images whose mean colour is taken off: deleting a cell takes its sum away."""

    def contributions(self, images: torch.Tensor) -> torch.Tensor:
        other = faithfulness.replacement(images, "mean").float()
        return ((images.float() - other) / 255 * self.weights.detach()).sum(1)


def test_an_additive_model_scores_one_and_random_maps_zero():
    model, images = Additive(), shapes.draw(shapes.balanced_labels(150, 0), SIDE, 1)[0]
    targets = torch.zeros(150, dtype=torch.int64)
    worth = single_deletion.falls(model, images, targets).detach()
    true = single_deletion.cell_sums(model.contributions(images))
    torch.testing.assert_close(worth.double(), 16 * true, rtol=1e-3, atol=1e-3)
    assert single_deletion.idsds(true, worth) == pytest.approx([1] * 150)
    assert single_deletion.saco(true, worth) == pytest.approx([1] * 150)
    assert single_deletion.idsds(-true, worth) == pytest.approx([-1] * 150)
    assert single_deletion.saco(-true, worth) == pytest.approx([-1] * 150)
    random = single_deletion.cell_sums(noise(150))
    scores = single_deletion.idsds(random, worth)
    assert abs(scores.mean()) < 0.08 and scores.var() == pytest.approx(1 / 15, rel=0.4)
    assert abs(single_deletion.saco(random, worth).mean()) < 0.1
    flat = single_deletion.cell_sums(torch.zeros(150, SIDE, SIDE))
    assert np.isnan(single_deletion.idsds(flat, worth)).all()
    assert np.isnan(single_deletion.saco(flat, worth)).all()


def test_deleted_cells_show_the_mean_colour_and_only_half_of_the_images_lose_one(drawn):
    gone = torch.zeros(12, 16, dtype=torch.bool)
    gone[:, 5] = True
    changed = single_deletion.without_cells(drawn[0], gone)
    inside = (slice(None), slice(None), slice(4, 8), slice(4, 8))
    mean = faithfulness.replacement(drawn[0], "mean")
    assert torch.equal(changed[inside], mean[inside])
    assert torch.equal(changed[..., 8:, :], drawn[0][..., 8:, :])
    whole = data.ImageSet(drawn[0].repeat(10, 1, 1, 1), torch.arange(120) % 2, ("a", "b"), "test")
    holed = single_deletion.with_deletions(whole)
    touched = (holed.images != whole.images).flatten(1).any(1).float().mean()
    assert 0.35 < touched < 0.65 and torch.equal(holed.labels, whole.labels)


def test_road_rewards_the_map_that_names_what_counts(drawn):
    model, targets = Weighted(), torch.zeros(12, dtype=torch.int64)
    true = (drawn[0].float() / 255 * model.weights.detach()).sum(1)
    right = faithfulness.road(model, drawn[0], true, targets)
    assert right.shape == (12,)
    assert right.mean() > faithfulness.road(model, drawn[0], -true, targets).mean()


def test_a_score_that_random_order_wins_is_unfit():
    rng = np.random.default_rng(0)
    random = rng.normal(0.5, 0.1, 40)
    scores = {"good": random + 0.2, "bad": random - 0.2 + rng.normal(0, 0.05, 40)}
    scores["same"] = rng.permutation(random)
    assert faithfulness.beaten_by_random(scores | {"random": random}) == ["bad"]
    scores["empty"] = np.full(40, np.nan)
    assert faithfulness.beaten_by_random(scores | {"random": random}) == ["bad"]


# ---------------------------------------------------------------- sanity


def test_similarity_of_maps():
    a, b = noise(3, 0) - 0.5, noise(3, 1) - 0.5
    expected = [
        spearmanr(x.abs().flatten(), y.abs().flatten()).statistic for x, y in zip(a, b, strict=True)
    ]
    assert sanity.spearman(a, b) == pytest.approx(expected)
    signed = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    assert sanity.spearman(a, b, sign=True) == pytest.approx(signed)
    same = sanity.similarity(a, -3 * a)  # scale never counts; the sign counts where it should
    assert same["ssim"] == pytest.approx([1] * 3) and same["magnitude"] == pytest.approx([1] * 3)
    assert same["sign"] == pytest.approx([-1] * 3)
    assert abs(sanity.ssim(a, b)).max() < 0.5
    b[1] = 0
    assert sanity.empty(b).tolist() == [False, True, False]
    for values in sanity.similarity(a, b).values():
        assert np.isnan(values).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="constant"):
        sanity.spearman(a, b)


def test_a_turned_sign_is_no_class_sensitivity():
    a, b = noise(3, 0) - 0.5, noise(3, 1) - 0.5
    assert sanity.class_sensitivity(a, -2 * a) == pytest.approx([0] * 3, abs=1e-6)
    assert sanity.class_sensitivity(a, b).min() > 0.7
    assert np.isnan(sanity.class_sensitivity(a, torch.zeros_like(b))).all()


def test_complexity_rises_where_a_map_gets_more_even_values():
    pointed = torch.zeros(3, SIDE, SIDE)
    pointed[:, 4:6, 4:6] = 1.0
    assert (sanity.complexity_rise(pointed, noise(3)) > 0).all()
    assert (sanity.complexity_rise(noise(3), pointed) < 0).all()
    assert np.isnan(sanity.complexity(torch.zeros(1, SIDE, SIDE))).all()


def test_smoothing_averages_the_maps_of_noisy_copies(drawn):
    def brightness(images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(1)

    smooth = sanity.smoothed(brightness, drawn[0], samples=30)
    plain = brightness(drawn[0])
    assert (smooth - plain).abs().mean() < 8  # of 255, with noise of 25
    assert torch.equal(smooth, sanity.smoothed(brightness, drawn[0], samples=30))


@pytest.mark.parametrize("arch", ["resnet34_slim", "vit_mini", "alexnet_slim"])
def test_cascade_reaches_every_weight_from_the_head_down(arch):
    torch.manual_seed(0)
    model = models.build(arch, 10, "none")
    with torch.no_grad():  # away from initial values, as after training
        for parameter in model.parameters():
            parameter += 0.1 + 0.1 * torch.rand(parameter.shape)
    before = {name: p.clone() for name, p in model.named_parameters()}
    torch.manual_seed(5)
    expected_draw = torch.rand(1)
    torch.manual_seed(5)
    changed = []
    for _stage, twin in sanity.cascade(model):
        changed.append({n for n, p in twin.named_parameters() if not torch.equal(p, before[n])})
        assert not twin.training
    assert torch.equal(torch.rand(1), expected_draw)  # the caller's random numbers stay
    assert all(a < b for a, b in itertools.pairwise(changed))
    assert changed[-1] == set(before)
    head = {id(p) for p in models.head(model).parameters()}
    own = {n for n, p in model.named_parameters() if id(p) in head}
    assert own <= changed[0] and len(changed[0]) < len(before) / 2
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    again, other = sanity.randomised(model), sanity.randomised(model, seed=1)
    for a, b in zip(twin.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    pairs = zip(twin.parameters(), other.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_randomisation_tells_a_map_of_the_model_from_one_of_the_picture(tiny, drawn):
    images, targets = drawn[0], torch.arange(12) % 10
    twin = sanity.randomised(tiny)
    saliency = [explain.explain(m, images, targets, "saliency") for m in (tiny, twin)]
    edges = [localisation.reference_maps(images)["edges"] for _ in range(2)]
    assert sanity.spearman(*saliency).mean() < 0.3
    assert sanity.spearman(*edges).min() == pytest.approx(1)


def test_pictures_move_and_their_border_repeats(drawn):
    moved = sanity.shifted(drawn[0], 2, -1)
    assert torch.equal(moved[..., 2:, :-1], drawn[0][..., :-2, 1:])
    assert torch.equal(moved[..., 0, :-1], drawn[0][..., 0, 1:])  # the border repeats


# ---------------------------------------------------------------- a peer


@pytest.fixture(scope="module")
def quantus():
    return pytest.importorskip("quantus", reason="the peer library quantus is absent")


def as_input(images: torch.Tensor) -> np.ndarray:
    return data.preprocess(images, images.shape[-1], Tiny.mean, Tiny.std).numpy()


def test_pointing_game_equals_quantus(quantus, tiny, drawn):
    maps = noise(12)
    maps[:4] += 2 * drawn[1][:4]  # hits among misses
    peer = quantus.PointingGame(abs=False, normalise=False, disable_warnings=True)
    theirs = peer(
        model=tiny,
        x_batch=as_input(drawn[0]),
        y_batch=np.zeros(12, int),
        a_batch=maps[:, None].numpy(),
        s_batch=drawn[1][:, None].numpy(),
    )
    ours = localisation.pointing_game(maps, drawn[1]).tolist()
    assert ours == [float(hit) for hit in theirs]
    assert 0 < np.mean(ours) < 1


def test_deletion_equals_quantus(quantus, drawn):
    # the peer wants steps that divide pixels, and all channels of a pixel in one
    side, steps = 12, 9
    model = Tiny(side).eval()
    images, maps = drawn[0][..., :side, :side], noise(12)[:, :side, :side]
    targets = torch.arange(12) % 10
    other = as_input(faithfulness.replacement(images, "mean")).reshape(12, -1)

    def replace(arr: np.ndarray, indices: np.ndarray, **_: object) -> np.ndarray:
        changed = arr.copy()
        np.put_along_axis(changed, indices, np.take_along_axis(other, indices, 1), 1)
        return changed

    peer = quantus.PixelFlipping(
        features_in_step=3 * side**2 // steps,
        perturb_func=replace,
        normalise=False,
        disable_warnings=True,
    )
    theirs = peer(
        model=model,
        x_batch=as_input(images),
        y_batch=targets.numpy(),
        a_batch=maps[:, None].numpy(),
        softmax=True,
    )
    ours = faithfulness.curves(model, images, {"m": maps}, targets, kind="mean", steps=steps)["m"]
    np.testing.assert_allclose(ours[:, 1:], np.array(theirs), atol=1e-5)


def saliency_of(
    model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object
) -> np.ndarray:
    """What Quantus calls for maps: largest absolute gradient over the channels."""
    x = torch.as_tensor(inputs).clone().requires_grad_()
    logits = model(x).gather(1, torch.as_tensor(targets)[:, None]).sum()
    return torch.autograd.grad(logits, x)[0].abs().amax(1, keepdim=True).numpy()


@pytest.fixture
def resettable(monkeypatch) -> Tiny:
    """A model whose layers get the same new weights, whoever resets them."""

    def reset(layer: nn.Module) -> None:
        generator = torch.Generator().manual_seed(layer.weight.numel())
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / 5

    monkeypatch.setattr(nn.Conv2d, "reset_parameters", reset)
    torch.manual_seed(2)
    model = Tiny().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) / 5)
    monkeypatch.setattr(nn.Linear, "reset_parameters", reset)
    return model


def test_parameter_randomisation_equals_quantus(quantus, drawn, resettable):
    images, targets = drawn[0], torch.arange(12) % 10
    peer = quantus.MPRT(
        similarity_func=quantus.similarity_func.correlation_spearman,
        abs=True,
        normalise=False,
        disable_warnings=True,
    )
    theirs = peer(
        model=resettable,
        x_batch=as_input(images),
        y_batch=targets.numpy(),
        explain_func=saliency_of,
    )
    before = explain.explain(resettable, images, targets, "saliency")
    ours = {
        stage: sanity.spearman(before, explain.explain(twin, images, targets, "saliency"))
        for stage, twin in sanity.cascade(resettable)
    }
    assert list(ours) == [name for name in theirs if name != "original"] == ["3", "0"]
    for stage, values in ours.items():
        np.testing.assert_allclose(values, theirs[stage], atol=1e-4)


def test_efficient_randomisation_equals_quantus(quantus, drawn, resettable):
    images, targets = drawn[0], torch.arange(12) % 10
    theirs = quantus.EfficientMPRT(disable_warnings=True)(
        model=resettable,
        x_batch=as_input(images),
        y_batch=targets.numpy(),
        explain_func=saliency_of,
    )
    before, after = (
        explain.explain(m, images, targets, "saliency")
        for m in (resettable, sanity.randomised(resettable))
    )
    np.testing.assert_allclose(sanity.complexity_rise(before, after), theirs, atol=0.02)


def test_smooth_randomisation_without_noise_is_the_plain_one(drawn, tiny):
    """Quantus' SmoothMPRT replaces the explain_func that it is given, so it is no peer here."""
    targets = torch.arange(12) % 10

    def saliency(images: torch.Tensor) -> torch.Tensor:
        return explain.explain(tiny, images, targets, "saliency")

    smooth = sanity.smoothed(saliency, drawn[0], samples=2, noise=0.0)
    torch.testing.assert_close(smooth, saliency(drawn[0]))
