"""Shapes-10: seeded, told apart by outline, and true about where the object is."""

import pytest
import torch

from utils import data
from utils.data import shapes
from utils.trust import localisation

N = len(shapes.CLASSES)


def prototypes(size: int = 64) -> torch.Tensor:
    """The ten outlines, centred, upright and equally large: bool (10, size, size)."""
    axis = (torch.arange(size) + 0.5) / size * 2.4 - 1.2
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)[None]
    return torch.cat([shapes.DISTANCES[name](grid) <= 0 for name in shapes.CLASSES])


@pytest.fixture(scope="module")
def drawn():
    labels = torch.arange(N).repeat_interleave(20)
    return labels, *shapes.draw(labels, seed=5)


def test_types_and_shapes(drawn):
    _, images, masks = drawn
    assert images.shape == (10 * 20, 3, 32, 32) and images.dtype == torch.uint8
    assert masks.shape == (10 * 20, 32, 32) and masks.dtype == torch.bool


def test_the_seed_alone_decides(drawn):
    labels, images, masks = drawn
    torch.manual_seed(99)  # the global generator must not matter
    again, same = shapes.draw(labels, seed=5)
    assert torch.equal(again, images) and torch.equal(same, masks)
    other, _ = shapes.draw(labels, seed=6)
    assert (other != images).flatten(1).any(1).all()


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    shapes.draw(torch.arange(3))
    assert torch.equal(torch.rand(3), expected)


def test_the_label_decides_the_outline_and_nothing_else():
    """With one seed, place, scale and colour are the same for every class: no shortcut."""
    discs, _ = shapes.draw(torch.zeros(6, dtype=torch.long), seed=2)
    stars, _ = shapes.draw(torch.full((6,), 5), seed=2)
    mixed, _ = shapes.draw(torch.tensor([0, 5, 0, 5, 0, 5]), seed=2)
    assert torch.equal(mixed[::2], discs[::2]) and torch.equal(mixed[1::2], stars[1::2])


@pytest.mark.parametrize("size", [16, 32, 64, 96])
def test_size_changes_the_grid_and_not_the_scene(size):
    labels = torch.arange(N)
    images, masks = shapes.draw(labels, size=size, seed=3)
    assert images.shape == (N, 3, size, size)
    _, fine = shapes.draw(labels, size=192, seed=3)
    shrunk = torch.nn.functional.interpolate(fine[:, None].float(), (size, size), mode="area")[:, 0]
    # half-covered pixels may round
    assert ((shrunk - masks.float()).abs() > 0.6).float().mean() < 0.002


@pytest.fixture(scope="module")
def many():
    labels = shapes.balanced_labels(300, 2)
    return shapes.draw(labels, seed=7)


def test_no_map_without_a_model_finds_the_object(many):
    """Brightness, edges, colour contrast, the centre, chance and the mean mask: AUC below 0.70."""
    images, masks = many
    others = shapes.draw(shapes.balanced_labels(1000, 3), seed=9)[1]
    maps = localisation.reference_maps(images)
    maps["mean mask"] = others.float().mean(0).expand_as(masks)
    pixels = images.float()
    border = torch.cat([pixels[..., 0], pixels[..., -1], pixels[..., 0, :], pixels[..., -1, :]], 2)
    ground = border.mean(2)[..., None, None]
    maps["blurred contrast"] = (data.blur(pixels, 2.0) - ground).norm(dim=1)
    assert len(maps) == 7
    for name, heat in maps.items():
        area = localisation.auc(heat, masks).mean().item()
        assert 0.30 < area < 0.70, f"{name}: {area:.2f}"


def test_object_and_ground_differ_in_hue_and_neither_in_brightness_nor_in_contrast(many):
    images, masks = many
    grey = images.float().mean(1)
    inside = torch.stack([g[m].mean() for g, m in zip(grey, masks, strict=True)])
    outside = torch.stack([g[~m].mean() for g, m in zip(grey, masks, strict=True)])
    assert abs((inside - outside).mean()) < 2  # of 255
    spread = [grey[part].std().item() for part in (masks, ~masks)]
    assert spread[0] == pytest.approx(spread[1], rel=0.15)
    chroma = (images.float() - grey[:, None]).norm(dim=1)
    assert chroma[masks].mean() == pytest.approx(chroma[~masks].mean().item(), rel=0.1)
    hue = images[:, 0].float() - grey  # the hue of objects is red or its opposite
    assert hue[masks].abs().mean() > 3 * hue[~masks].abs().mean()


def test_the_distractor_has_the_objects_hue_and_no_mask(many):
    images, masks = many
    hue = (images[:, 0].float() - images.float().mean(1)).abs() > 40
    beside = (hue & ~masks).flatten(1).float().sum(1) / masks.flatten(1).sum(1)
    assert beside.median() > 0.1  # there is something else in the object's colour
    assert beside.mean() < 0.6  # and it is smaller


def test_two_objects_stand_apart_and_have_a_mask_each():
    labels = torch.arange(N)
    images, masks = shapes.draw(labels, seed=4, second=(labels + 3) % N)
    assert images.shape == (N, 3, 32, 32) and masks.shape == (N, 2, 32, 32)
    assert not (masks[:, 0] & masks[:, 1]).any()
    size = masks.flatten(2).sum(2).float()
    assert (size.min(1).values / size.max(1).values).min() > 0.25
    hue = (images[:, 0].float() - images.float().mean(1)).abs()
    assert hue[masks[:, 1]].mean() > 50 and hue[masks[:, 0]].mean() > 50


def test_the_object_fills_a_sensible_part_and_is_hardly_cut(drawn):
    _, _, masks = drawn
    area = masks.float().mean((1, 2))
    assert area.min() > 0.03 and area.max() < 0.3
    border = torch.cat([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], 1)
    assert border.float().mean() < 0.05


def test_position_scale_and_colour_vary(drawn):
    labels, images, masks = drawn
    discs, where = images[labels == 0].float(), masks[labels == 0].float()
    axis = torch.arange(32.0)
    centre = (where.sum(1) * axis).sum(1) / where.sum((1, 2))
    assert centre.std() > 1
    assert where.sum((1, 2)).std() / where.sum((1, 2)).mean() > 0.1
    colour = (discs * where[:, None]).sum((2, 3)) / where.sum((1, 2))[:, None]
    assert (colour.std(0) > 5).sum() >= 2


def test_every_class_is_told_apart():
    outlines = prototypes().flatten(1).float()
    both = outlines @ outlines.T
    union = outlines.sum(1)[:, None] + outlines.sum(1) - both
    overlap = (both / union).fill_diagonal_(0)
    assert overlap.max() < 0.85  # the closest pair is disc and square


def test_a_centred_scaled_mask_is_nearest_to_its_own_outline():
    """Masks cut out, scaled to one box and compared with the outlines: hardly a mistake."""
    labels = torch.arange(N).repeat_interleave(12)
    _, masks = shapes.draw(labels, size=64, seed=8)

    def boxed(mask: torch.Tensor) -> torch.Tensor:
        y, x = torch.where(mask)
        cut = mask[y.min() : y.max() + 1, x.min() : x.max() + 1]
        return torch.nn.functional.interpolate(cut[None, None].float(), (32, 32), mode="area")[0, 0]

    outlines = torch.stack([boxed(mask) for mask in prototypes()]).flatten(1)
    seen = torch.stack([boxed(mask) for mask in masks]).flatten(1)
    nearest = torch.cdist(seen, outlines).argmin(1)
    assert (nearest == labels).float().mean() > 0.85


def test_polygon_distance_is_exact():
    distance = shapes._polygon([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    points = torch.tensor([[0.0, 0.0], [0.5, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, -1.0]])
    assert torch.allclose(distance(points), torch.tensor([-1.0, -0.5, 1.0, 2**0.5, 0.0]), atol=1e-6)


@pytest.mark.parametrize("n", [10, 95, 200])
def test_balanced_labels(n):
    labels = shapes.balanced_labels(n, seed=1)
    counts = labels.bincount(minlength=N)
    assert len(labels) == n and counts.max() - counts.min() <= 1
    assert torch.equal(labels, shapes.balanced_labels(n, seed=1))
    assert not torch.equal(labels, shapes.balanced_labels(n, seed=2))
    assert not torch.equal(labels, labels.sort().values)
