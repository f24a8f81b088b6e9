"""Pretraining without labels: what is hidden stays hidden, it learns, repeats itself, and ships a card."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from utils import data, env, models, train
from utils.data import shapes
from utils.models import zoo
from utils.tests.train.conftest import images
from utils.tests.train.conftest import mini as encoder
from utils.train import SELFSUP, Recipe, command, pretrain, selfsup

QUICK = Recipe(2, "adamw", 2e-3, 0.01, batch=8, schedule="onecycle")
NAMES = sorted(selfsup.OBJECTIVES)


def task(name: str) -> selfsup.Objective:
    return selfsup.build_objective(name, encoder())


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- masks, patches, views


def test_the_mask_leaves_exactly_what_it_says():
    kept, hidden = selfsup.random_mask(50, 64, 16, rng())
    assert kept.shape == (50, 16) and (hidden.sum(1) == 48).all()
    assert not hidden.gather(1, kept).any() and all(len(set(row)) == 16 for row in kept.tolist())
    share = (~hidden).float().mean(0)  # no place is favoured
    assert share.min() > 0.02 and share.max() < 0.55


@pytest.mark.parametrize("visible", [0.25, 0.5])
def test_the_encoder_computes_on_cls_and_the_kept_patches_only(visible):
    objective = selfsup.MAE(encoder(), visible=visible)
    lengths = []
    objective.encoder.blocks[0].register_forward_hook(lambda m, x, y: lengths.append(y.shape[1]))
    objective(images(6).images, rng())
    assert lengths == [1 + round(16 * visible)]


def test_hidden_pixels_do_not_reach_the_encoder():
    objective, x = task("mae").eval(), torch.randn(4, 3, 32, 32)
    kept, hidden = selfsup.random_mask(4, 16, 4, rng())
    pixels = selfsup.patchify(x, 8)
    noise = torch.where(hidden[:, :, None], torch.randn_like(pixels), pixels)
    other = F.fold(noise.transpose(1, 2), 32, 8, stride=8)
    assert not torch.equal(x, other)
    assert torch.allclose(objective.paint(x, kept), objective.paint(other, kept), atol=1e-5)
    seen = F.fold(pixels.masked_fill(~hidden[:, :, None], 0).transpose(1, 2), 32, 8, stride=8)
    assert not torch.allclose(objective.paint(x, kept), objective.paint(seen, kept), atol=1e-3)


def test_encode_without_a_mask_is_what_the_model_computes():
    model, x = encoder().eval(), torch.randn(3, 3, 32, 32)
    assert torch.allclose(selfsup.encode(model, x), model.forward_features(x), atol=1e-6)


def test_patches_are_in_the_order_of_the_model():
    model, x = encoder(), torch.randn(2, 3, 32, 32)
    weight, bias = model.patch_embed.proj.weight.flatten(1), model.patch_embed.proj.bias
    assert torch.allclose(selfsup.patchify(x, 8) @ weight.T + bias, model.patch_embed(x), atol=1e-5)


def test_only_hidden_patches_are_scored_each_by_its_own_scale():
    painted, pixels = torch.randn(3, 16, 192), torch.randn(3, 16, 192)
    _, hidden = selfsup.random_mask(3, 16, 4, rng())
    loss = selfsup.MAE.painting_loss(painted, pixels, hidden)
    elsewhere = torch.where(hidden[:, :, None], pixels, torch.randn_like(pixels))
    assert torch.equal(loss, selfsup.MAE.painting_loss(painted, elsewhere, hidden))
    inside = torch.where(hidden[:, :, None], torch.randn_like(pixels), pixels)
    assert not torch.isclose(loss, selfsup.MAE.painting_loss(painted, inside, hidden), rtol=1e-3)
    brighter = 3 * pixels + 7  # contrast and brightness of a patch are not asked for
    assert torch.isclose(loss, selfsup.MAE.painting_loss(painted, brighter, hidden), rtol=1e-4)
    perfect = (pixels - pixels.mean(2, True)) / pixels.std(2, keepdim=True)
    assert selfsup.MAE.painting_loss(perfect, pixels, hidden) < 1e-6


def test_views_are_in_range_differ_and_repeat():
    some = images(40).images
    a, b, again = (selfsup.random_views(some, rng(seed)) for seed in (0, 1, 0))
    assert a.shape == some.shape and a.min() >= 0 and a.max() <= 1 and torch.equal(a, again)
    assert ((a - b).abs().mean((1, 2, 3)) > 1e-3).all()
    grey = (a.amax(1) - a.amin(1)).amax((1, 2)) < 0.02
    assert 1 <= grey.sum() <= 20  # about a fifth, and never all


def test_a_view_without_jitter_is_a_crop(monkeypatch):
    """With every random number at the middle of its range only the crop is left, and it is centred."""
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.full(shape, 0.5))
    some = images(4).images
    view = selfsup.random_views(some, rng(), smallest=1.0)
    assert torch.allclose(view, some / 255, atol=0.01)


# ---------------------------------------------------------------- it learns and repeats itself


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(tmp_path, name):
    recipe = replace(QUICK, epochs=30, batch=16, lr=4e-3)
    loss = pretrain.learn(task(name), images(32).images, recipe, tmp_path)["loss"]
    first, last = (sum(loss[i:][:8]) / 8 for i in (0, -8))
    assert len(loss) == 60 and last < first - {"mae": 0.15, "contrast": 0.2}[name]


def test_contrast_starts_at_chance():
    loss = task("contrast")(images(24).images, rng())
    assert abs(loss.item() - math.log(2 * 24 - 1)) < 1.5


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("name", "optimizer", "ema", "stop"),
    [("mae", "muon", 0.0, 4), ("mae", "adamw", 0.9, 3), ("contrast", "muon", 0.9, 5)],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, name, optimizer, ema, stop):
    recipe, some = replace(QUICK, optimizer=optimizer, ema=ema), images(24).images
    whole = task(name)
    told = pretrain.learn(whole, some, recipe, tmp_path / "whole")
    broken, forward = task(name), selfsup.OBJECTIVES[name].forward
    count = []

    def deadly(self, *batch):
        count.append(batch)
        if len(count) > stop:
            raise Killed
        return forward(self, *batch)

    monkeypatch.setattr(selfsup.OBJECTIVES[name], "forward", deadly)
    with pytest.raises(Killed):
        pretrain.learn(broken, some, recipe, tmp_path / "broken")
    monkeypatch.setattr(selfsup.OBJECTIVES[name], "forward", forward)
    fresh = task(name)
    torch.rand(3)  # the global generator must not matter
    again = pretrain.learn(fresh, some, recipe, tmp_path / "broken")
    assert again["loss"] == told["loss"] and again["seconds"] > 0
    ours, theirs = whole.state_dict(), fresh.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_too_few_images_and_a_loss_that_is_none(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="5 images are fewer than a batch of 8"):
        pretrain.learn(task("mae"), images(5).images, QUICK, tmp_path)
    monkeypatch.setattr(selfsup.MAE, "painting_loss", lambda self, *a: a[0].sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="is nan at batch 0.*lower the learning rate"):
        pretrain.learn(task("mae"), images(24).images, QUICK, tmp_path)


# ---------------------------------------------------------------- what is shipped


def test_judging_finds_classes_that_are_there_and_none_that_are_not():
    plain = torch.arange(10).repeat_interleave(6)
    colours = torch.rand(10, 3, 1, 1, generator=rng(1)) * 255
    flat = colours[plain].expand(-1, -1, 32, 32).to(torch.uint8).contiguous()
    some = data.ImageSet(flat, plain, shapes.CLASSES, "plain colours")
    right = pretrain.judge(encoder(), some, some, neighbours=3)
    assert set(right) == {"cls.knn", "cls.linear", "mean.knn", "mean.linear"}
    assert right["mean.knn"] > 0.8 and right["mean.linear"] > 0.5
    wrong = replace(some, labels=(plain + 1) % 10)
    assert pretrain.judge(encoder(), some, wrong, neighbours=3)["mean.knn"] < 0.2


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_shipped_with_a_card_and_load_with_their_hash(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pretrain, "RUNS", tmp_path / "runs")
    for module in (pretrain, zoo):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    monkeypatch.setattr(data, "PAPER_POOL", 40)
    sets = {"train": images(64), "test": images(20, 2)}
    monkeypatch.setattr(data, "load", lambda source, split: sets[split])
    monkeypatch.setattr(zoo, "_create", lambda arch, classes, pretrained: encoder(classes))
    seen, learn = [], pretrain.learn
    monkeypatch.setattr(pretrain, "learn", lambda *a: seen.append(a[1]) or learn(*a))
    card = pretrain.pretrain_without_labels("vit_mini", replace(QUICK, epochs=1), "the line", name)
    assert torch.equal(seen[0], sets["train"].images[40:])  # none of those kept aside
    assert json.loads(json.dumps(card)) == models.card("vit_mini", name)
    assert card["pretraining"] == name and card["images"] == 24 and card["test_images"] == 20
    assert card["phases"][0]["command"] == "the line"
    file = tmp_path / f"vit_mini.{name}.safetensors"
    state = load_file(file)
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not any(k.startswith("head") for k in state)
    assert state["pos_embed"].dtype == torch.float16

    model = models.build("vit_mini", 4, f"course:{name}")
    assert model.head.out_features == 4
    assert model.provenance.startswith(f"course weights {file.name}")
    bank = sets["train"].subset(range(40, 64))
    assert pretrain.judge(model, bank, sets["test"]) == card["frozen_accuracy"]
    with pytest.raises(ValueError, match="has no head to keep"):
        models.build("vit_mini", 10, f"course:{name}", keep_head=True)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ValueError, match="sha256 differs"):
        models.build("vit_mini", 10, f"course:{name}")


def test_wrong_names_get_one_sentence(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match=r"objective 'jigsaw': use mae, contrast\.$"):
        selfsup.build_objective("jigsaw", encoder())
    with pytest.raises(ValueError, match="resnet34_slim has not: take vit_mini"):
        selfsup.build_objective("mae", models.build("resnet34_slim", 10, "none"))
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    (tmp_path / "vit_mini.mae.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"vit_mini\.jigsaw.*vit_mini with course:mae"):
        models.build("vit_mini", 10, "course:jigsaw")
    for arguments, said in (
        (["vit_mini", "--objective", "jigsaw"], "invalid choice: 'jigsaw'"),
        (["resnet34_slim", "--objective", "mae"], "--objective mae is for vit_mini"),
        (["vit_mini", "--objective", "mae", "--start", "course"], "without --teacher or --start"),
    ):
        with pytest.raises(SystemExit):
            command.main(["pretrain", *arguments])
        assert said in capsys.readouterr().err


def test_the_command_line_passes_the_recipe_on(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(pretrain, "pretrain_without_labels", lambda *a: asked.append(a) or {})
    command.main(["pretrain", "vit_mini", "--objective", "mae", "--epochs", "3"])
    line = "python -m utils.train pretrain vit_mini --objective mae --epochs 3"
    assert asked == [("vit_mini", replace(SELFSUP["mae"], epochs=3), line, "mae")]
    assert SELFSUP.keys() == selfsup.OBJECTIVES.keys() == selfsup.SUMMARY.keys()


def test_runs_from_course_variants_get_a_folder_any_system_takes(tmp_path):
    where = train.run_dir("vit_mini", env.profile("smoke"), "Shapes-10", "course:mae")
    assert where.name == "vit_mini-course-mae"
