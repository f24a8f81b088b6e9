"""Mosaics: perfect maps score 1, class-blind maps exactly chance, and Quantus agrees."""

import numpy as np
import pytest
import torch

from utils import explain, models
from utils.data import shapes
from utils.trust import localisation, mosaics


@pytest.fixture(scope="module")
def made() -> mosaics.Mosaics:
    labels = shapes.balanced_labels(60, 0)
    return mosaics.make(shapes.draw(labels, size=16, seed=1)[0], labels, 8, seed=2)


def quarters(made: mosaics.Mosaics, targets: torch.Tensor) -> torch.Tensor:
    """Maps (M, 32, 32) that are 1 in the tiles of the target and 0 elsewhere."""
    tiles = (made.labels == targets[:, None]).view(-1, 2, 2).float()
    return tiles.repeat_interleave(16, 1).repeat_interleave(16, 2)


def test_tiles_are_whole_images_of_different_classes(made):
    labels = shapes.balanced_labels(60, 0)
    images = shapes.draw(labels, size=16, seed=1)[0]
    assert made.images.shape == (8, 3, 32, 32) and made.targets.shape == (8, 4)
    assert torch.equal(made.labels, labels[made.sources])
    assert torch.equal(made.images[3, :, :16, 16:], images[made.sources[3, 1]])
    assert torch.equal(made.images[3, :, 16:, :16], images[made.sources[3, 2]])


def test_perfect_and_wrong_maps(made):
    for targets in made.targets.T:
        right = quarters(made, targets)
        assert mosaics.score(right, made.labels, targets).tolist() == [1.0] * 8
        assert mosaics.score(1 - right, made.labels, targets).tolist() == [0.0] * 8
        assert mosaics.score(-right, made.labels, targets).isnan().all()


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_maps_that_do_not_look_at_the_class_score_exactly_chance(classes):
    labels = shapes.balanced_labels(80, 0) % classes
    made = mosaics.make(shapes.draw(labels, size=16, seed=1)[0], labels, 8, seed=2)
    references = localisation.reference_maps(made.images)
    for heat in references.values():
        each = [mosaics.score(heat, made.labels, t) for t in made.targets.T]
        shares = torch.stack(each, 1).mean(1)
        assert shares.tolist() == pytest.approx([mosaics.chance(made)] * 8)
    assert mosaics.chance(made) == 1 / min(classes, 4)


def test_one_class_makes_no_mosaic():
    with pytest.raises(ValueError, match="two classes"):
        mosaics.make(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4).long(), 2)
    with pytest.raises(ValueError, match="no way 'small'"):
        mosaics.adapted(torch.nn.Linear(2, 2), "small")


@pytest.mark.parametrize("arch", ["resnet34_slim", "vit_mini"])
def test_models_take_mosaics_and_keep_their_own_size(arch, made):
    torch.manual_seed(0)
    model = models.build(arch, 10, "none")
    size = model.input_size
    larger = mosaics.adapted(model)
    assert larger.input_size == 2 * size and model.input_size == size
    share = mosaics.accuracy(larger, made)
    assert share.shape == (8,) and share.min() >= 0 and share.max() <= 1
    heat = explain.explain(larger, made.images[:2], 3, "gradcam")
    assert heat.shape == (2, 32, 32)
    assert models.logits_of(model, made.images[:2, :, :16, :16]).shape == (2, 10)


def test_scores_of_a_method_for_every_class(made):
    torch.manual_seed(0)
    model = models.build("resnet34_slim", 10, "none")
    part = mosaics.Mosaics(made.images[:2], made.labels[:2], made.sources[:2])
    values = mosaics.scores(model, part, "saliency", "half")
    assert values.shape == (2, 4) and np.nanmin(values) >= 0 and np.nanmax(values) <= 1


def test_score_equals_quantus_focus(made):
    quantus = pytest.importorskip("quantus", reason="the peer library quantus is absent")
    maps = torch.randn(8, 32, 32, generator=torch.Generator().manual_seed(0))
    targets = made.targets[:, 1]
    peer = quantus.Focus(disable_warnings=True, normalise=False, abs=False)
    theirs = peer(
        model=torch.nn.Identity(),
        x_batch=made.images.numpy(),
        y_batch=targets.numpy(),
        a_batch=maps[:, None].numpy(),
        custom_batch=[tuple(row) for row in (made.labels == targets[:, None]).int().tolist()],
    )
    ours = mosaics.score(maps, made.labels, targets)
    assert ours.tolist() == pytest.approx(list(theirs), abs=1e-6)
