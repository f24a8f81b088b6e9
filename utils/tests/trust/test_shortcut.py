"""The planted mark and the auditor: maps that follow the shortcut reveal it, others do not."""

import pytest
import torch

from utils import data, models
from utils.data import shapes
from utils.trust import parts, shortcut

SIDE = 16


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return shapes.draw(shapes.balanced_labels(120, 0), size=SIDE, seed=3)[0]


def test_the_mark_is_planted_on_one_class_at_varying_places(images):
    whole = data.ImageSet(images, torch.arange(120) % 3, ("a", "b", "c"), "test")
    mark = shortcut.Mark(4)
    planted, marked = shortcut.plant(whole, 1, mark)
    assert marked.sum() == 38 and set(whole.labels[marked].tolist()) == {1}
    changed = (planted.images != images).any(1)
    assert not changed[~marked].any()
    magenta = torch.tensor([255, 0, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    squares = (planted.images[marked] == magenta).all(1)
    assert (squares.flatten(1).sum(1) >= 16).all()
    assert len({tuple(torch.nonzero(s)[0].tolist()) for s in squares}) > 10
    places = mark.places(500, SIDE, SIDE)
    assert places.min() == 0 and places.max() == SIDE - 4
    with pytest.raises(ValueError, match="does not fit"):
        shortcut.Mark(17).places(1, SIDE, SIDE)
    with pytest.raises(ValueError, match="class 7"):
        shortcut.plant(whole, 7, mark)


def maps(share: float, models_: int, masks: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """Noise with about `share` of its mass on the mark, for several models."""
    generator = torch.Generator().manual_seed(seed)
    area = masks.float().mean((1, 2))[:, None, None]
    weight = torch.where(masks, share / area, (1 - share) / (1 - area))
    return [weight * torch.rand(masks.shape, generator=generator) for _ in range(models_)]


def test_the_auditor_tells_models_apart_only_where_maps_differ():
    mark = shortcut.Mark(4)
    masks = mark.masks(mark.places(20, SIDE, SIDE), SIDE, SIDE)
    revealed = shortcut.audit(maps(0.4, 5, masks, 0), maps(0.06, 5, masks, 1), masks)
    assert revealed.reveals and revealed.auc.mean > 0.95
    assert revealed.hits > 0.9 > 0.5 > revealed.false_alarms
    assert revealed.area == pytest.approx(1 / 16) and 0.5 <= revealed.seeds < 0.65
    always = shortcut.audit(maps(0.4, 5, masks, 0), maps(0.4, 5, masks, 1), masks)
    assert not always.reveals and 0.35 < always.auc.mean < 0.65
    assert always.false_alarms > 0.9  # it cries wolf
    faint = shortcut.audit(maps(0.05, 5, masks, 0), maps(0.02, 5, masks, 1), masks)
    assert faint.auc.above(0.75) and not faint.reveals  # apart, but less than the mark's area
    slight = shortcut.audit(maps(0.12, 5, masks, 0), maps(0.06, 5, masks, 1), masks)
    assert slight.share.above(slight.area) and slight.gain == pytest.approx(0.06, abs=0.01)
    assert slight.auc.above(0.75) and not slight.reveals  # apart, but nobody would see it
    blank = shortcut.audit([torch.zeros(masks.shape)] * 5, maps(0.06, 5, masks, 1), masks)
    assert blank.empty == 100 and not blank.reveals


@pytest.mark.parametrize("arch", ["resnet34_slim", "vit_mini"])
def test_retraining_the_late_layers_learns_and_leaves_the_rest(arch):
    torch.manual_seed(0)
    model = models.build(arch, 2, "none")
    before = parts.fingerprint(model)
    pixels = torch.zeros(48, 3, SIDE, SIDE, dtype=torch.uint8)
    pixels[24:] = 255
    pixels[:, 0] += torch.randint(0, 9, (48, SIDE, SIDE), dtype=torch.uint8)
    train_set = data.ImageSet(pixels, (torch.arange(48) >= 24).long(), ("dark", "bright"), "test")
    twin = shortcut.retrained(model, train_set, seed=1, epochs=4, lr=3e-3, batch=16)
    assert parts.fingerprint(model) == before
    early = "layer1" if arch.startswith("resnet") else "blocks.0"
    assert parts.fingerprint(model.get_submodule(early)) == parts.fingerprint(
        twin.get_submodule(early)
    )
    preds = models.logits_of(twin, pixels).argmax(1)
    assert (preds == train_set.labels).float().mean() > 0.9
    again = shortcut.retrained(model, train_set, seed=1, epochs=4, lr=3e-3, batch=16)
    assert parts.fingerprint(twin) == parts.fingerprint(again)
    with pytest.raises(ValueError, match="neither"):
        shortcut._late(torch.nn.Linear(2, 2))


def test_parts_are_kept_until_a_fact_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.env.RUNS", tmp_path)
    calls = []

    def compute() -> dict:
        calls.append(1)
        return {"score": torch.arange(3).numpy()}

    first = parts.kept("test", {"images": 3}, compute)
    again = parts.kept("test", {"images": 3}, compute)
    assert len(calls) == 1 and again["score"].tolist() == first["score"].tolist() == [0, 1, 2]
    parts.kept("test", {"images": 4}, compute)
    assert len(calls) == 2
