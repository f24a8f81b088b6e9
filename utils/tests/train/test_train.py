"""The training loop: it learns, repeats itself, survives kills, and says what is wrong."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from utils import data, env, models, train
from utils.models import inference, zoo
from utils.tests.train.conftest import ADAMW, curves, images, same, tiny, weights
from utils.train import (
    Recipe,
    chapter_models,
    checkpoint,
    command,
    loop,
    pretrain,
    recipes,
    starts,
    supervised,
)


class Killed(BaseException):
    """Like KeyboardInterrupt: nobody catches it."""


@pytest.fixture
def steps(monkeypatch):
    """Counts optimiser steps; set steps.last to be killed in the step after that many."""

    class Steps:
        count, last = 0, float("inf")

    create = recipes.create_optimizer_v2

    def counting(*arguments, **options):
        optimizer = create(*arguments, **options)
        step = optimizer.step

        def counted():
            Steps.count += 1
            if Steps.count > Steps.last:
                raise Killed
            return step()

        optimizer.step = counted
        return optimizer

    monkeypatch.setattr(recipes, "create_optimizer_v2", counting)
    return Steps


# ---------------------------------------------------------------- it trains


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_it_learns(tmp_path, kind):
    recipe = Recipe(30, "adamw", 4e-3, batch=16, schedule="onecycle")
    model, some = tiny(kind), images(80)
    history = train.fit(model, some, some, recipe, tmp_path)
    first, last = (sum(part) / 5 for part in (history.loss[:5], history.loss[-5:]))
    assert last < 0.8 * first and max(history.val_accuracy) > 0.3
    assert not model.training
    accuracy = (models.logits_of(model, some.images).argmax(1) == some.labels).float().mean()
    assert accuracy.item() == pytest.approx(max(history.val_accuracy), abs=1e-6)


def test_history_has_every_batch_and_every_epoch(tmp_path):
    history = train.fit(tiny(), images(), images(12, 1), ADAMW, tmp_path)
    assert history.steps_per_epoch == 5
    assert len(history.loss) == len(history.accuracy) == 10
    assert len(history.val_loss) == len(history.val_accuracy) == 2
    assert all(loss > 0 for loss in history.loss) and history.seconds > 0
    stored = json.loads((tmp_path / "history.json").read_text())
    assert stored["loss"] == history.loss and stored["facts"]["recipe"]["optimizer"] == "adamw"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_batch_values_equal_a_hand_written_loop(tmp_path, smoothing, soft):
    """Plain SGD without augmentation: order, targets, rate, loss, accuracy and update by hand."""
    some, recipe = images(20), Recipe(1, "sgd", 0.05, batch=8, label_smoothing=smoothing)
    model, by_hand = tiny("cnn"), tiny("cnn")
    teacher = torch.rand(20, 10).softmax(1) if soft else None
    history = train.fit(model, some, some, recipe, tmp_path, soft_labels=teacher)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(by_hand.parameters(), 0.05, momentum=0.9, nesterov=True)
    by_hand.train()
    for step, chosen in enumerate(order.split(8)):
        logits = by_hand((some.images[chosen] / 255 - 0.5) / 0.5)
        loss = F.cross_entropy(logits, some.labels[chosen], label_smoothing=smoothing)
        if soft:
            loss = (loss + F.cross_entropy(logits, teacher[chosen])) / 2
        assert history.loss[step] == pytest.approx(loss.item(), rel=1e-4)
        hits = (logits.argmax(1) == some.labels[chosen]).float().mean().item()
        assert history.accuracy[step] == pytest.approx(hits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    by_hand.eval()
    val = F.cross_entropy(by_hand((some.images / 255 - 0.5) / 0.5), some.labels)
    assert history.val_loss[0] == pytest.approx(val.item(), rel=1e-3)


@pytest.mark.parametrize(("n", "expected"), [(16, 2), (17, 2), (18, 3)])
def test_a_last_batch_of_one_image_is_left_out(tmp_path, n, expected):
    history = train.fit(tiny("cnn"), images(n), images(10), replace(ADAMW, epochs=1), tmp_path)
    assert len(history.loss) == history.steps_per_epoch == expected


def test_phases_of_size_and_patch_dropping(tmp_path, monkeypatch):
    seen = []
    real = data.preprocess

    def noted(pixels, size, mean, std):
        seen.append((size, getattr(getattr(model, "patch_drop", None), "prob", 0.0)))
        return real(pixels, size, mean, std)

    monkeypatch.setattr(inference, "preprocess", noted)
    model = tiny()
    recipe = replace(ADAMW, epochs=3, batch=20, patch_drop=((1, 0.5), (1, 0.25)))
    train.fit(model, images(), images(10), recipe, tmp_path / "vit")
    drops = [drop for _, drop in seen]
    assert drops == [0.5] * 3 + [0.25] * 6  # two batches and the validation of each epoch
    assert isinstance(model.patch_drop, torch.nn.Identity)
    seen.clear()
    model = tiny("cnn")
    recipe = replace(ADAMW, epochs=3, batch=20, sizes=((2, 48), (1, 64)))
    train.fit(model, images(), images(10), recipe, tmp_path / "cnn")
    own = model.input_size  # of validation, so that epochs can be compared
    assert [size for size, _ in seen] == [48, 48, own] * 2 + [64, 64, own]


def test_learning_rates():
    rates = [train.learning_rate(replace(ADAMW, epochs=2), step, 5) for step in range(10)]
    assert rates[0] == 0 and rates[2] == max(rates) == 1e-3  # up over a fifth of the run
    assert rates[1] == pytest.approx(0.5e-3)
    assert rates[6] == pytest.approx(0.5e-3) and 0 < rates[9] < 0.05e-3  # cosine, half-way at half
    shorter = [train.learning_rate(replace(ADAMW, warmup=0.1), step, 10) for step in range(20)]
    assert shorter[0] == 0 and shorter[2] == max(shorter) == 1e-3
    assert train.learning_rate(replace(ADAMW, warmup=0.0), 0, 10) == 1e-3
    constant, steps = (replace(ADAMW, schedule=schedule) for schedule in ("constant", "step"))
    assert {train.learning_rate(constant, step, 5) for step in range(10)} == {1e-3}
    rates = [train.learning_rate(steps, 10 * epoch, 10) for epoch in (0, 4, 5, 9, 10)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5])
    with pytest.raises(ValueError, match="no schedule 'cosine'.*onecycle"):
        train.learning_rate(replace(ADAMW, schedule="cosine"), 0, 5)


@pytest.mark.parametrize("name", ["adam", "adamw", "muon", "sgd"])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_fused_adam_where_the_parameters_are_on_a_gpu(monkeypatch, name, on_gpu):
    """The parameters decide, not the device that would be chosen for a new model."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: on_gpu))
    monkeypatch.setenv("XTL_DEVICE", "cpu" if on_gpu else "meta")
    asked = {}
    monkeypatch.setattr(recipes, "create_optimizer_v2", lambda *a, **options: asked.update(options))
    recipes.build_optimizer(tiny(), replace(ADAMW, optimizer=name))
    assert asked.get("fused", False) == (on_gpu and name in ("adam", "adamw"))


def test_the_published_recipes():
    assert train.RECIPES["paper", "cnn"] == Recipe(5, "adam", 1e-5, 5e-4, batch=32)
    assert train.RECIPES["paper", "vit"] == Recipe(3, "adam", 2e-5, 0.01, batch=32)
    assert train.NAMED["adam-b8"] == Recipe(10, "adam", 1e-4, batch=8, schedule="step")
    assert (train.NAMED["adamw-8"].epochs, train.NAMED["adamw-8"].optimizer) == (8, "adamw")
    assert {(p, k) for p in env.PROFILES for k in ("cnn", "vit")} == train.RECIPES.keys()


def test_nothing_in_a_step_waits_for_the_device(tmp_path, monkeypatch):
    """Numbers are fetched at the end of an epoch, however many steps it has."""

    class Fetches(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            waits = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
            self.count += function.overloadpacket in waits
            return function(*args, **kwargs or {})

    monkeypatch.setattr(loop, "SAVE_EVERY", 1000)
    monkeypatch.setattr(loop._Loop, "_log", lambda self, epoch: None)
    recipe, counts = Recipe(1, "sgd", 0.01, batch=4, augment=True), []
    for n in (16, 80):
        with Fetches() as fetches:
            train.fit(tiny("cnn"), images(n), images(10, 1), recipe, tmp_path / str(n))
        counts.append(fetches.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_a_moving_average_is_what_is_judged_and_kept(tmp_path, monkeypatch, kind):
    passed, judged = [], []
    update, logits_of = recipes.ModelEmaV3.update, models.logits_of

    def noted(self, model, step):
        passed.append(weights(model))
        update(self, model, step)

    def watched(model, *inputs):
        judged.append(weights(model))
        return logits_of(model, *inputs)

    monkeypatch.setattr(recipes.ModelEmaV3, "update", noted)
    monkeypatch.setattr(supervised, "logits_of", watched)
    model = tiny(kind)
    train.fit(model, images(), images(10, 1), replace(ADAMW, epochs=1, ema=0.6), tmp_path)
    assert len(passed) == 5
    expected = passed[0]
    for step, now in enumerate(passed):
        decay = min(0.6, 1 - max(1, step) ** (-2 / 3))  # short memory at first
        for key, value in now.items():
            blend = decay * expected[key] + (1 - decay) * value
            expected[key] = blend if value.is_floating_point() else value
    for key, value in expected.items():
        torch.testing.assert_close(judged[-1][key], value)
    assert same(weights(model), judged[-1]) and not same(passed[-1], judged[-1])


# ---------------------------------------------------------------- it repeats itself


def test_same_seed_same_weights_and_other_seed_other_weights(tmp_path):
    runs = []
    for k, seed in enumerate((0, 0, 1, 123_456)):
        model = tiny()
        torch.rand(k)  # the state of the global generator must not matter
        recipe = replace(ADAMW, seed=seed)
        history = train.fit(model, images(), images(10, 1), recipe, tmp_path / str(k))
        runs.append((weights(model), history.loss))
    assert same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert not same(runs[0][0], runs[2][0]) and runs[2][1] != runs[3][1]


@pytest.mark.parametrize(
    ("kind", "optimizer", "ema", "stops"),
    [
        # before, at and between checkpoints; at an epoch's end
        ("vit", "adamw", 0.0, (1, 3, 4, 5, 7)),
        ("cnn", "muon", 0.9, (3, 8)),
        ("vit", "muon", 0.0, (4,)),
        ("vit", "adamw", 0.9, (4,)),
        ("cnn", "adam", 0.0, (6,)),
        ("cnn", "sgd", 0.0, (4,)),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, steps, kind, optimizer, ema, stops):
    recipe = replace(ADAMW, optimizer=optimizer, patch_drop=((1, 0.5), (1, 0.0)), ema=ema)
    model = tiny(kind)
    whole = train.fit(model, images(), images(10, 1), recipe, tmp_path / "whole")
    for stop in stops:
        steps.count, steps.last = 0, stop
        with pytest.raises(Killed):
            train.fit(tiny(kind), images(), images(10, 1), recipe, tmp_path / str(stop))
        steps.count, steps.last = 0, float("inf")
        resumed = tiny(kind)
        history = train.fit(resumed, images(), images(10, 1), recipe, tmp_path / str(stop))
        assert steps.count == 10 - max(s for s in (0, 3, 5, 8) if s <= stop)
        assert same(weights(model), weights(resumed)) and curves(history) == curves(whole), stop


def test_killed_again_and_again(tmp_path, steps):
    model = tiny()
    whole = train.fit(model, images(), images(10, 1), ADAMW, tmp_path / "whole")
    for _ in range(3):
        steps.count, steps.last = 0, 4
        try:
            train.fit(tiny(), images(), images(10, 1), ADAMW, tmp_path / "often")
        except Killed:
            continue
    steps.last = float("inf")
    resumed = tiny()
    history = train.fit(resumed, images(), images(10, 1), ADAMW, tmp_path / "often")
    assert curves(history) == curves(whole)
    assert same(weights(model), weights(resumed))


def in_a_child(work: Callable, folder: Path) -> multiprocessing.Process:
    """A started process that runs work(folder, threads); the imports are made once for all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=work, args=(folder, torch.get_num_threads()))
    process.start()
    return process


def cut(folder: Path, threads: int) -> None:
    """A process that is killed in the middle of writing its third checkpoint."""
    torch.set_num_threads(threads)
    loop.SAVE_EVERY, save, count = 3, checkpoint.save_file, []

    def written_in_half(tensors, file, facts):
        count.extend([1] * (file.name == "last.part"))
        if len(count) == 3:
            file.write_bytes(b"half a file")
            os.kill(os.getpid(), signal.SIGKILL)
        save(tensors, file, facts)

    checkpoint.save_file = written_in_half
    train.fit(tiny(), images(), images(10, 1), ADAMW, folder)


def test_a_real_kill_in_the_middle_of_a_checkpoint(tmp_path, steps):
    process = in_a_child(cut, tmp_path / "killed")
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "killed" / "last.part").read_bytes() == b"half a file"
    resumed, model = tiny(), tiny()
    history = train.fit(resumed, images(), images(10, 1), ADAMW, tmp_path / "killed")
    assert steps.count == 5  # from the end of the first epoch on
    whole = train.fit(model, images(), images(10, 1), ADAMW, tmp_path / "whole")
    assert same(weights(model), weights(resumed)) and curves(history) == curves(whole)


def live(folder: Path, threads: int) -> None:
    """A process that trains, checkpoints after every step, and takes its time over each file."""
    torch.set_num_threads(threads)
    loop.SAVE_EVERY, written = 1, checkpoint.save_file

    def slowly(tensors, file, facts):
        file.write_bytes(b"half a file")
        time.sleep(0.02)
        written(tensors, file, facts)

    checkpoint.save_file = slowly
    model, some, val = tiny(), images(), images(10, 1)
    (folder / "alive").touch()
    train.fit(model, some, val, ADAMW, folder)


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path):
    model = tiny()
    loop.SAVE_EVERY = 1
    whole = train.fit(model, images(), images(10, 1), ADAMW, tmp_path / "whole")
    moments, kills, runs = random.Random(0), 0, 0
    while kills < 10:
        folder, finished = tmp_path / f"run {runs}", False
        folder.mkdir()
        while not finished:
            process = in_a_child(live, folder)
            while not (folder / "alive").exists():  # however slow the machine is
                process.join(0.005)
                assert process.exitcode is None
            (folder / "alive").unlink()
            process.join(moments.uniform(0.02, 0.5) if kills < 10 else None)
            finished = process.exitcode == 0
            if not finished:
                process.kill()
                process.join()
                finished = process.exitcode == 0  # it was quicker than the signal
                assert finished or process.exitcode == -signal.SIGKILL
                kills += not finished
        resumed = tiny()
        history = train.fit(resumed, images(), images(10, 1), ADAMW, folder)
        assert same(weights(model), weights(resumed)) and curves(history) == curves(whole)
        runs += 1


def test_a_finished_run_is_loaded_without_a_step(tmp_path, steps, capsys):
    """Also where the recipe holds tuples, which JSON gives back as lists."""
    recipe = replace(ADAMW, sizes=((1, 32), (1, 32)), patch_drop=((1, 0.5), (1, 0.0)))
    model = tiny()
    history = train.fit(model, images(), images(10, 1), recipe, tmp_path)
    assert steps.count == 10
    again = tiny()
    assert curves(train.fit(again, images(), images(10, 1), recipe, tmp_path)) == curves(history)
    assert steps.count == 10 and same(weights(model), weights(again)) and not again.training
    assert "changed" not in capsys.readouterr().out


@pytest.mark.parametrize("change", ["recipe", "image", "labels", "teacher"])
def test_changed_data_or_recipe_trains_afresh_and_says_so(tmp_path, steps, capsys, change):
    some, recipe, teacher = images(), ADAMW, None
    train.fit(tiny(), some, images(10, 1), recipe, tmp_path)
    if change == "recipe":
        recipe = replace(recipe, lr=2e-3)
    elif change == "image":
        some.images[7] = 255 - some.images[7]
    elif change == "labels":
        some = replace(some, labels=some.labels.flip(0))
    else:
        teacher = torch.full((40, 10), 0.1)
    model, fresh = tiny(), tiny()
    steps.count = 0
    history = train.fit(model, some, images(10, 1), recipe, tmp_path, teacher)
    assert steps.count == 10
    assert "changed since the last run; training afresh" in capsys.readouterr().out
    expected = train.fit(fresh, some, images(10, 1), recipe, tmp_path / "new", teacher)
    assert curves(history) == curves(expected)
    assert same(weights(model), weights(fresh))


def test_tensorboard_has_every_step_once_also_after_a_resume(tmp_path, steps):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps.last = 7
    with pytest.raises(Killed):
        train.fit(tiny(), images(), images(10, 1), ADAMW, tmp_path)
    steps.last = float("inf")
    history = train.fit(tiny(), images(), images(10, 1), ADAMW, tmp_path)
    log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for tag, values in (("train/loss", history.loss), ("train/accuracy", history.accuracy)):
        assert [e.step for e in log.Scalars(tag)] == list(range(10))
        assert [e.value for e in log.Scalars(tag)] == pytest.approx(values)
    assert [e.value for e in log.Scalars("val/accuracy")] == pytest.approx(history.val_accuracy)


# ---------------------------------------------------------------- what can go wrong


@pytest.mark.parametrize("at", [1, 3])
def test_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch, steps, at):
    save, count = checkpoint.save_file, 0

    def full(tensors, file, facts):
        nonlocal count
        count += file.name == "last.part"
        if count == at:
            file.write_bytes(b"half a file")
            raise OSError(28, "No space left on device")
        save(tensors, file, facts)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(OSError, match="last.safetensors could not be written.*free some disk"):
            train.fit(tiny(), images(), images(10, 1), ADAMW, tmp_path)
    assert not list(tmp_path.glob("*.part"))
    if at == 1:
        assert not (tmp_path / "last.safetensors").exists()
        return
    with safe_open(tmp_path / "last.safetensors", "pt") as handle:
        assert json.loads(handle.metadata()["facts"])["step"] == 5
    steps.count, resumed, model = 0, tiny(), tiny()
    history = train.fit(resumed, images(), images(10, 1), ADAMW, tmp_path)
    assert steps.count == 5
    whole = train.fit(model, images(), images(10, 1), ADAMW, tmp_path / "whole")
    assert curves(history) == curves(whole)


def test_a_really_full_disk_is_one_sentence(tmp_path):
    """A limit on the size of files stands in for the disk."""
    resource = pytest.importorskip("resource", reason="needs a Unix to limit the size of files")
    checkpoint.save(tmp_path / "x.safetensors", {"a": torch.ones(10)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="x.safetensors could not.*checkpoint is intact"):
            checkpoint.save(tmp_path / "x.safetensors", {"a": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], torch.ones(10))


def test_a_damaged_checkpoint_is_named(tmp_path):
    train.fit(tiny(), images(), images(10, 1), ADAMW, tmp_path)
    file = tmp_path / "last.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="last.safetensors is damaged.*delete it to train afresh"):
        train.fit(tiny(), images(), images(10, 1), ADAMW, tmp_path)


def test_a_loss_that_is_not_finite_names_the_batch_and_loses_nothing(tmp_path, steps):
    model, calls = tiny(), []

    def explode(module, inputs, output):
        calls.append(1)
        return output * float("nan") if len(calls) == 5 else output

    model.register_forward_hook(explode)
    message = r"nan at batch 4 \(it began at 2.\d+\): lower the learning rate \(now 0.001\)"
    with pytest.raises(FloatingPointError, match=message):
        train.fit(model, images(), images(10, 1), ADAMW, tmp_path)
    with safe_open(tmp_path / "last.safetensors", "pt") as handle:
        assert json.loads(handle.metadata()["facts"])["step"] == 3
    steps.count, resumed, model = 0, tiny(), tiny()
    history = train.fit(resumed, images(), images(10, 1), ADAMW, tmp_path)
    assert steps.count == 7
    whole = train.fit(model, images(), images(10, 1), ADAMW, tmp_path / "whole")
    assert curves(history) == curves(whole)


def test_wrong_number_of_classes_soft_labels_and_images(tmp_path):
    with pytest.raises(ValueError, match="7 outputs but Shapes-10 has 10 .*num_classes=10"):
        train.fit(tiny(classes=7), images(), images(10), ADAMW, tmp_path)
    with pytest.raises(ValueError, match=r"soft_labels has shape \(39, 10\).*\(40, 10\)"):
        train.fit(tiny(), images(), images(10), ADAMW, tmp_path, torch.zeros(39, 10))
    with pytest.raises(ValueError, match="1 images to train and 10 to validate"):
        train.fit(tiny(), images(1), images(10), ADAMW, tmp_path)
    with pytest.raises(ValueError, match="40 images to train and 0 to validate"):
        train.fit(tiny(), images(), images(10).subset([]), ADAMW, tmp_path)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- logits, finetuned, pretrain


def test_logits_do_not_depend_on_the_chunk():
    model, some = tiny("cnn").train(), images(20)
    whole = models.logits_of(model, some.images)
    assert whole.shape == (20, 10) and whole.device.type == "cpu" and model.training
    assert torch.allclose(whole, models.logits_of(model, some.images, chunk=3), atol=1e-5)


def test_finetuned_trains_once_and_then_loads(tmp_path, monkeypatch, steps):
    monkeypatch.setattr(chapter_models, "RUNS", tmp_path)
    chosen = replace(env.PROFILES["smoke"], n_train=24, n_val=10, n_test=10)
    recipe = replace(ADAMW, epochs=1)
    first = train.finetuned("vit_mini", chosen, "none", recipe)
    assert steps.count == 3 and not first.training and len(first.history.loss) == 3
    place = train.run_dir("vit_mini", chosen, "Shapes-10", "none")
    assert place == tmp_path / "smoke" / "shapes-10" / "vit_mini-none"
    assert (place / "best.safetensors").exists()
    torch.manual_seed(77)
    again = train.finetuned("vit_mini", chosen, "none", recipe)
    assert steps.count == 3 and same(weights(first), weights(again))
    assert again.history.loss == first.history.loss and again.arch == "vit_mini"
    other = train.run_dir("a", chosen, "CIFAR-10 (JPEG copy)")
    assert other == tmp_path / "smoke" / "cifar-10--jpeg-copy" / "a"


def pool_of_sixteen(monkeypatch):
    """(the images to pretrain on, all sets): tiny models, and 1,000 black images kept aside."""
    monkeypatch.setattr(data, "PAPER_POOL", 1000)
    pool, aside = images(16, 1), torch.zeros(1000, 3, 32, 32, dtype=torch.uint8)
    labels = torch.cat([aside[:, 0, 0, 0].long(), pool.labels])
    whole = replace(pool, images=torch.cat([aside, pool.images]), labels=labels)
    sets = {"train": whole, "test": images(10, 2)}
    monkeypatch.setattr(zoo, "_create", lambda arch, classes, pretrained: tiny(classes=classes))
    monkeypatch.setattr(data, "load", lambda source, split: sets[split])
    return pool, sets


def test_pretrain_ships_weights_with_a_card_and_keeps_the_first_images_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "RUNS", tmp_path / "runs")
    for module in (pretrain, zoo):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    pool, sets = pool_of_sixteen(monkeypatch)
    fitted, fit = [], train.fit
    monkeypatch.setattr(pretrain, "fit", lambda *a: fitted.append(a[1]) or fit(*a))
    card = pretrain.pretrain("vit_mini", replace(ADAMW, epochs=1), "the line that was typed")
    assert card["phases"][0]["command"] == "the line that was typed"
    assert torch.equal(fitted[0].images, pool.images)  # none of those kept aside
    assert json.loads(json.dumps(card)) == models.card("vit_mini")
    assert card["images"] == 16 and card["test_images"] == 10
    shipped = models.build("vit_mini", 10, "course", keep_head=True)
    right = models.logits_of(shipped, sets["test"].images).argmax(1) == sets["test"].labels
    assert right.float().mean().item() == pytest.approx(card["test_accuracy"])
    assert load_file(tmp_path / card["file"])["head.weight"].dtype == torch.float16


def test_weights_that_went_on_from_the_student_tell_both_phases(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "RUNS", tmp_path / "runs")
    for module in (pretrain, zoo):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    student, recipe = tiny(classes=0), replace(ADAMW, epochs=1)
    file = pretrain.ship(student, "vit_mini.imagenet")
    pretrain.write_card(file, "vit_mini", {"summary": "a student"}, [{"minutes": 2.0}], recipe, 16)
    pool_of_sixteen(monkeypatch)
    initial, fit = [], train.fit
    noted = lambda m, *rest: initial.append(m.cls_token.clone()) or fit(m, *rest)  # noqa: E731
    monkeypatch.setattr(pretrain, "fit", noted)
    card = pretrain.pretrain("vit_mini", recipe, "a line", start="course:imagenet")
    assert torch.equal(initial[0], student.cls_token.half().float())
    assert len(card["phases"]) == 2 and card["phases"][0]["minutes"] == 2.0


def test_starts_are_compared_alike_and_the_cards_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(chapter_models, "RUNS", tmp_path / "runs")
    for module in (starts, zoo):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    for kind in ("mae", "contrast", "cifar10"):
        (tmp_path / f"tiny.{kind}.json").write_text('{"arch": "tiny"}')
    parts = data.Splits(images(24), images(10, 1), images(200, 2), {})
    monkeypatch.setattr(data, "splits", lambda chosen: parts)
    built, fitted, fit = [], [], train.fit
    build = lambda arch, n, weights: built.append(weights) or tiny(classes=n)  # noqa: E731
    monkeypatch.setattr(models, "build", build)
    monkeypatch.setattr(starts, "fit", lambda *a: fitted.append(a[3]) or fit(*a))
    recipe = replace(ADAMW, epochs=1)
    found = starts.compare("tiny", recipe)
    assert built == ["none"] * 3 + ["course:contrast"] * 3 + ["course:mae"] * 3
    assert fitted == [replace(recipe, seed=seed) for seed in (0, 1, 2)] * 3  # nothing else differs
    assert found["random"] == found["mae"]  # this test gives each start the same weights
    assert len(set(found["random"])) > 1  # ... and each seed another order
    assert "fine_tuned" not in models.card("tiny", "cifar10")  # it knows the classes already
    for kind in ("mae", "contrast"):
        card = models.card("tiny", kind)
        assert card["arch"] == "tiny" and card["fine_tuned"]["accuracy"] == found[kind]
        assert card["fine_tuned"]["accuracy_from_random_weights"] == found["random"]
    with pytest.raises(FileNotFoundError, match="nothing has no course weights that have not seen"):
        starts.compare("nothing")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pretrain resnet50", "pretrain knows resnet34_slim, vit_mini"),
        ("compare resnet50", "compare knows resnet34_slim, vit_mini"),
        ("distil alexnet_slim", f"distil knows {', '.join(recipes.DISTIL)}"),
        ("transfer alexnet_slim", f"transfer knows {', '.join(recipes.DISTIL)}"),
        ("pretrain resnet34_slim --sizes 15at96", "EPOCHSxPIXELS, such as 15x96 5x128, not 15at96"),
    ],
)
def test_the_command_line_names_what_it_knows(capsys, line, message):
    with pytest.raises(SystemExit):
        command.main(line.split())
    assert message in capsys.readouterr().err


def test_the_command_line_passes_phases_on(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(pretrain, "pretrain", lambda *a: asked.append(a) or {})
    typed = "pretrain resnet34_slim --start course --sizes 15x96 5x128 --lr 0.012 --ema 0.99"
    command.main(typed.split())
    ((arch, recipe, line, teacher, start),) = asked
    assert line == f"python -m utils.train {typed}"
    assert (arch, teacher, start) == ("resnet34_slim", [], "course")
    assert recipe.epochs == 20 and recipe.sizes == ((15, 96), (5, 128))
    assert (recipe.lr, recipe.ema) == (0.012, 0.99)
