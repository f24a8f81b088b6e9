"""Training does what was asked: frozen parts stay, second stages train, models come back whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from utils import models, train
from utils.tests.train.conftest import ADAMW, curves, images, named, same, tiny, weights
from utils.train import Recipe, modes

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def only_head(model: nn.Module) -> nn.Module:
    model.requires_grad_(False)
    models.head(model).requires_grad_(True)
    return model


def fit(model: nn.Module, folder: Path, recipe: Recipe = ADAMW) -> train.History:
    return train.fit(model, images(), images(10, 1), recipe, folder)


# ---------------------------------------------------------------- what is frozen stays as it was


@pytest.mark.parametrize("kind", ["all but the head", "two stages", "batch norms", "efficientnet"])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_frozen_batch_norms_keep_their_statistics(tmp_path: Path, kind: str, ema: float) -> None:
    model = tiny("cnn")
    if kind == "efficientnet":
        model = named(timm.create_model("efficientnet_lite0", num_classes=10), kind)
    if kind == "two stages":
        for part in (model.conv1, model.bn1, model.layer1, model.layer2):
            part.requires_grad_(False)
    elif kind == "batch norms":
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.requires_grad_(False)
    else:
        only_head(model)
    before, seen = weights(model), []
    model.register_forward_pre_hook(
        lambda m, _: seen.append((m.training, [p.training for p in m.modules()]))
    )
    fit(model, tmp_path, replace(ADAMW, epochs=1, ema=ema))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    held = {k for k in before if f"{k.rpartition('.')[0]}.weight" in frozen or k in frozen}
    assert any(k.endswith(STATISTICS) for k in held) and not moved & held
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained <= moved
    assert seen[0][0] and not all(seen[0][1])  # the whole trains, its frozen parts do not


def test_a_frozen_part_keeps_its_dropout_off() -> None:
    part = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).requires_grad_(False)
    model = nn.Sequential(part, nn.Dropout(0.5), nn.Linear(4, 2))
    modes.train_mode(model.eval())
    assert model.training and model[1].training and model[2].training
    assert not any(p.training for p in part.modules())


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_gradient_checkpointing_changes_nothing(tmp_path: Path, kind: str) -> None:
    """Layers are computed twice a step, but each batch counts once in a batch norm."""
    plain, checkpointed = tiny(kind), tiny(kind)
    checkpointed.set_grad_checkpointing(True)
    histories = [fit(m, tmp_path / str(k)) for k, m in enumerate((plain, checkpointed))]
    assert curves(histories[0]) == curves(histories[1])
    assert same(weights(plain), weights(checkpointed))


# ---------------------------------------------------------------- a run folder holds one experiment


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_a_second_stage_in_the_same_folder_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture, kind: str
) -> None:
    model = only_head(tiny(kind))
    fit(model, tmp_path)
    first = weights(model)
    fit(model.requires_grad_(True), tmp_path)
    moved = [k for k, p in model.named_parameters() if not torch.equal(p, first[k])]
    assert len(moved) == len(list(model.parameters()))
    said = capsys.readouterr().out
    assert "frozen parameters, initial weights changed since the last run; training afresh" in said


def test_other_initial_weights_in_the_same_folder_train(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one, other, alone = tiny(seed=0), tiny(seed=1), tiny(seed=1)
    fit(one, tmp_path / "a")
    history = fit(other, tmp_path / "a")
    assert "initial weights changed since the last run" in capsys.readouterr().out
    assert curves(history) == curves(fit(alone, tmp_path / "b"))
    assert same(weights(other), weights(alone))


@pytest.mark.parametrize("change", ["more", "others", "labels"])
def test_other_validation_images_train_afresh(
    tmp_path: Path, capsys: pytest.CaptureFixture, change: str
) -> None:
    """The kept epoch was the best on the former ones."""
    val = {"more": images(20, 1), "others": images(10, 2), "labels": images(10, 1)}[change]
    if change == "labels":
        val = replace(val, labels=val.labels.flip(0))
    train.fit(tiny(), images(), images(10, 1), ADAMW, tmp_path / "a")
    history = train.fit(tiny(), images(), val, ADAMW, tmp_path / "a")
    assert "validation data changed since the last run" in capsys.readouterr().out
    assert curves(history) == curves(train.fit(tiny(), images(), val, ADAMW, tmp_path / "b"))


# ---------------------------------------------------------------- models come back whole


OTHER_VITS = {  # patch dropping absent, or under another form
    "eva02": "eva02_tiny_patch14_224",
    "dinov3": "vit_small_patch16_dinov3",
    "convnet": "resnet18",
    "mixer": "mixer_s32_224",
}


@pytest.mark.parametrize("name", OTHER_VITS)
def test_models_without_the_plain_patch_dropping_train_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture, name: str
) -> None:
    small = {"img_size": 32} if name in ("eva02", "dinov3") else {}
    if name == "eva02":
        small |= {"patch_size": 8}
    torch.manual_seed(0)
    model = timm.create_model(OTHER_VITS[name], num_classes=2, **small)
    model = named(model, name, 224 if name == "mixer" else 32)
    labels = torch.arange(4) % 2
    some = replace(images(4), labels=labels, classes=("a", "b"))
    recipe = Recipe(1, "sgd", 0.01, batch=4, patch_drop=((1, 0.5),))
    attribute = getattr(model, "patch_drop", None)
    history = train.fit(model, some, some, recipe, tmp_path)
    assert len(history.loss) == 1 and getattr(model, "patch_drop", None) is attribute
    assert f"{name} is trained without patch_drop: only timm's plain ViT" in capsys.readouterr().out
    assert models.logits_of(model, some.images).isfinite().all()


def test_a_models_own_patch_dropping_is_put_back(tmp_path: Path) -> None:
    own = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2, patch_drop_rate=0.25
    )
    own.reset_classifier(10)
    own, before = named(own, "own"), own.patch_drop
    fit(own, tmp_path, replace(ADAMW, epochs=1, patch_drop=((1, 0.5),)))
    assert own.patch_drop is before and before.prob == 0.25


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, FloatingPointError])
def test_a_failed_fit_leaves_the_model_as_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type
) -> None:
    model = tiny()
    model.train()
    model.norm.eval()
    before, were = weights(model), [m.training for m in model.modules()]
    measure, count = train.supervised.Classification.measure, []

    def failing(self, network, batch):
        count.append(1)
        if len(count) == 4:
            raise error("in the middle")
        return measure(self, network, batch)

    monkeypatch.setattr(train.supervised.Classification, "measure", failing)
    recipe = replace(ADAMW, patch_drop=((1, 0.5),))
    with pytest.raises(error):
        fit(model, tmp_path / "a", recipe)
    assert same(weights(model), before) and [m.training for m in model.modules()] == were
    assert isinstance(model.patch_drop, nn.Identity)
    whole = tiny()
    resumed, straight = fit(model, tmp_path / "a", recipe), fit(whole, tmp_path / "b", recipe)
    assert len(count) == 4 + 7 + 10 and curves(resumed) == curves(straight)
    assert same(weights(model), weights(whole))


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0", "convnext_atto"])
def test_the_memory_layout_is_the_models_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """channels_last only where it is known to help; it can crash the backward pass elsewhere."""
    model = named(timm.create_model(name, num_classes=2), name)
    seen = []
    model.register_forward_pre_hook(
        lambda m, x: seen.append(x[0].is_contiguous(memory_format=torch.contiguous_format))
    )
    some = replace(images(4), labels=torch.arange(4) % 2, classes=("a", "b"))
    train.fit(model, some, some, Recipe(1, "adamw", 1e-4, batch=4), tmp_path)
    assert seen and all(seen)
    assert all(p.is_contiguous() for p in model.parameters())


def test_features_and_scores_leave_the_modes_alone() -> None:
    from utils.train import pretrain, probe

    model = tiny().train()
    model.blocks[0].eval()
    were = [m.training for m in model.modules()]
    pretrain.features(model, images(6).images)
    probe.frozen_features(model, images(6).images)
    probe.head_inputs(model, images(6).images)
    assert [m.training for m in model.modules()] == were
