"""The loop: when a loss counts as lost, which epoch is kept, precision, Ctrl-C, and what tasks get."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from utils import env, models, train
from utils.tests.train.conftest import ADAMW, images, same, tiny, weights
from utils.train import Recipe, checkpoint, command, loop, probe, recipes, supervised
from utils.train.task import Batch, Task

# ---------------------------------------------------------------- a loss that is lost


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.3] * 30, None),
        ([2.3, 2.0, float("nan"), 1.0], 2),
        ([float("inf"), 2.0], 0),
        ([4e4, 3e4, 5e4, 2e4, 1e4, 5e3], None),  # an untrained head with large outputs
        ([4e4, 6e4] * 20, None),
        ([2.3, 2.2, 30000.0] + [2.1] * 40, None),  # one bad batch, then as before
        ([2.3] * 30 + [2.3 * 2**k for k in range(25)], 34),  # divergence
        ([2.3, 1e6, 1e6, 1e6, 1e6], 1),
        ([0.05] * 20 + [2.0] * 40, None),  # a trained head on other data: no worse than a guess
    ],
)
def test_an_explosion_is_a_trend_and_not_a_large_first_loss(losses, expected) -> None:
    assert loop.explosion(torch.tensor(losses), guess=2.3) == expected


@pytest.mark.parametrize("scale", [1e3, 1e5, 1e6])
def test_an_untrained_head_with_a_large_first_loss_trains(tmp_path: Path, scale: float) -> None:
    model = tiny("cnn")
    with torch.no_grad():
        models.head(model).weight.mul_(scale)
    history = train.fit(model, images(), images(10, 1), replace(ADAMW, lr=1e-4), tmp_path)
    assert history.loss[0] > scale / 20 and len(history.loss) == 10


@pytest.mark.parametrize(("kind", "lr"), [("vit", 1e5), ("cnn", 1e6), ("cnn", 1e30)])
def test_a_rate_that_is_too_high_still_stops_the_run(tmp_path: Path, kind: str, lr: float) -> None:
    recipe = replace(ADAMW, optimizer="sgd", lr=lr, schedule="constant")
    with pytest.raises(FloatingPointError, match="it began at 2.*lower the learning rate"):
        train.fit(tiny(kind), images(), images(10, 1), recipe, tmp_path)


# ---------------------------------------------------------------- the epoch that is kept


@pytest.mark.parametrize(
    ("accuracy", "loss", "expected"),
    [
        ([0.2, 0.7, 0.7, 0.5], [2.0, 0.99, 0.90, 0.1], 2),
        ([0.7, 0.7, 0.7], [0.9, 0.9, 0.9], 0),
        ([0.7, 0.7, 0.8], [0.1, 0.2, 5.0], 2),
    ],
)
def test_ties_of_accuracy_are_broken_by_the_validation_loss(accuracy, loss, expected) -> None:
    assert train.History(val_accuracy=accuracy, val_loss=loss).best_epoch == expected


def test_the_weights_kept_are_those_of_the_best_epoch(tmp_path: Path, monkeypatch) -> None:
    """Validation made so that the second and third epoch are as often right, the third surer."""
    val, taken = images(10, 1), []

    def scripted(model, pixels, chunk=0, size=None):
        taken.append(weights(model))
        right, sure = ((2, 5), (7, 1), (7, 5), (5, 5))[len(taken) - 1]
        logits = sure * F.one_hot(val.labels, 10).float()
        return torch.where((torch.arange(10) < right)[:, None], logits, logits.roll(1, 1) / sure)

    monkeypatch.setattr(supervised, "logits_of", scripted)
    model = tiny()
    history = train.fit(model, images(), val, replace(ADAMW, epochs=4), tmp_path)
    assert history.val_accuracy[1] == history.val_accuracy[2] and history.best_epoch == 2
    assert same(weights(model), taken[2])
    assert same(load_file(tmp_path / "best.safetensors"), taken[2])
    last = load_file(tmp_path / "last.safetensors")
    assert all(torch.equal(last[f"model.{k}"], v) for k, v in taken[3].items())


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("where", "capability", "expected"),
    [
        ("cuda", (7, 5), torch.float16),  # T4, Colab's free card
        ("cuda", (7, 0), torch.float16),
        ("cuda", (8, 0), torch.bfloat16),
        ("cuda", (9, 0), torch.bfloat16),
        ("cuda", (12, 0), torch.bfloat16),
        ("cpu", None, torch.float32),
        ("mps", None, torch.float32),
    ],
)
def test_precision_is_what_the_card_has(monkeypatch, where, capability, expected) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert env.precision(torch.device(where)) == expected
    if where != "cuda":
        with env.autocast(torch.device(where)):
            assert not torch.is_autocast_enabled(where)


@pytest.fixture
def old_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU stands in for a card without bfloat16."""
    monkeypatch.setattr(env, "precision", lambda where: torch.float16)
    monkeypatch.setattr(loop, "precision", lambda where: torch.float16)


def test_old_cards_train_in_float16_with_loss_scaling(tmp_path, monkeypatch, old_card) -> None:
    kinds, scales = [], []
    model, plain = tiny("cnn"), tiny("cnn")
    model.fc.register_forward_hook(lambda m, x, y: kinds.append(y.dtype))
    backward = torch.Tensor.backward
    monkeypatch.setattr(
        torch.Tensor, "backward", lambda self: scales.append(float(self.detach())) or backward(self)
    )
    history = train.fit(model, images(), images(10, 1), ADAMW, tmp_path / "half")
    assert set(kinds) == {torch.float16}
    assert scales[0] / history.loss[0] == pytest.approx(2**16)
    monkeypatch.undo()
    monkeypatch.setenv("XTL_DEVICE", "cpu")
    full = train.fit(plain, images(), images(10, 1), ADAMW, tmp_path / "full")
    assert history.loss[0] == pytest.approx(full.loss[0], rel=0.01) and history.loss != full.loss
    assert all(abs(a - b) < 0.6 for a, b in zip(history.loss, full.loss, strict=True))


def test_a_step_with_infinite_gradients_is_skipped_and_the_scale_survives_a_stop(
    tmp_path, old_card
) -> None:
    calls, stop, lost = [], [4], [2]

    def fit(model: nn.Module, folder: Path) -> train.History:
        def overflow(gradient):
            calls.append(1)
            if len(calls) == stop[0]:
                raise KeyboardInterrupt
            return gradient * (float("inf") if len(calls) in lost else 1.0)

        calls.clear()
        model.conv1.weight.register_hook(overflow)
        return train.fit(model, images(), images(10, 1), ADAMW, folder)

    scales = []
    for folder, bad in ((tmp_path / "without", []), (tmp_path / "a", [2])):
        lost[:] = bad
        with pytest.raises(KeyboardInterrupt):
            fit(tiny("cnn"), folder)
        file = folder / "last.safetensors"
        facts = checkpoint.State(file, nn.Linear(1, 1), None, None, {}).stored()[0]
        assert facts["step"] == 3
        scales.append(facts["scaler"]["scale"])
    assert scales[1] == scales[0] / 2
    stop[0] = 0
    whole, resumed = tiny("cnn"), tiny("cnn")
    straight = fit(whole, tmp_path / "b")
    calls[:] = [1] * 3
    again = train.fit(resumed, images(), images(10, 1), ADAMW, tmp_path / "a")
    assert again.loss == straight.loss and same(weights(resumed), weights(whole))


# ---------------------------------------------------------------- Ctrl-C


def test_stopping_says_where_and_that_the_same_command_goes_on(tmp_path, monkeypatch) -> None:
    step = loop._Loop._step
    calls = []

    def stopped(self, number, place):
        calls.append(number)
        if number == 4:
            raise KeyboardInterrupt
        step(self, number, place)

    monkeypatch.setattr(loop._Loop, "_step", stopped)
    said = "training tiny_vit was stopped at step 4 of 10; the same command goes on from step 3."
    with pytest.raises(KeyboardInterrupt, match=said):
        train.fit(tiny(), images(), images(10, 1), ADAMW, tmp_path)


INTERRUPTED = """
import os, signal, sys
from utils.train import command, loop
step = loop._Loop._step
def stopped(self, number, place):
    if number == 2:
        os.kill(os.getpid(), signal.SIGINT)
    step(self, number, place)
loop._Loop._step = stopped
command.main(["--profile", "smoke"])
"""


@pytest.mark.skipif(os.name == "nt", reason="sends a Unix signal")
def test_ctrl_c_on_the_command_line_is_one_sentence(tmp_path: Path) -> None:
    script = (
        "import signal\nfrom pathlib import Path\nfrom utils.train import chapter_models\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this was started by\n"
        f"chapter_models.RUNS = Path({str(tmp_path)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script + INTERRUPTED],
        cwd=env.ROOT,
        env=os.environ | {"PYTHONPATH": str(env.ROOT), "XTL_DEVICE": "cpu", "XTL_DATA": "digits"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("training resnet34_slim was stopped at step 2 of")
    assert last.endswith("the same command goes on from step 0.")


def test_ctrl_c_before_training_is_one_sentence_too(monkeypatch, capsys) -> None:
    def stopped(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "finetuned", stopped)
    with pytest.raises(SystemExit):
        command.main(["--profile", "smoke"])
    assert "the same command begins it" in capsys.readouterr().err


# ---------------------------------------------------------------- tasks, rates, heads


class Recall(Task):
    """Learns a number for each image by its index, and notes what it was given."""

    def __init__(self, pixels: torch.Tensor) -> None:
        super().__init__(nn.Embedding(len(pixels), 1), {"kind": "recall"})
        self.pixels, self.epochs = pixels, []

    def begin_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def measure(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        assert torch.equal(batch.images, self.pixels[batch.indices])
        error = network(batch.indices)[:, 0] - batch.indices
        return {"loss": error.square().mean()}


def test_a_task_gets_the_indices_of_its_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pixels = images(12).images
    task, again = Recall(pixels), Recall(pixels)
    recipe = Recipe(200, "adam", 0.5, batch=5)
    done = loop.run(task, pixels, recipe, tmp_path / "a")
    assert done.steps == 3 and len(done.records["loss"]) == 600 and task.epochs == [*range(200)]
    learned = task.module.weight[:, 0]
    assert (learned - torch.arange(12)).abs().max() < 0.5
    again.module.load_state_dict(task.module.state_dict())
    assert loop.run(again, pixels, recipe, tmp_path / "a").records["loss"][0] < 1


def test_layers_below_learn_more_slowly(tmp_path: Path) -> None:
    model = tiny()
    before = weights(model)
    recipe = Recipe(1, "sgd", 1e-3, batch=40, layer_decay=0.1)
    optimizer = recipes.build_optimizer(model, recipe)
    scales = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    expected = [model.patch_embed.proj.weight, model.blocks[0].mlp.fc1.weight]
    expected += [model.blocks[1].mlp.fc1.weight, model.head.weight]
    found = [scales[id(p)] for p in expected]
    assert found[-1] == 1 and all(a < 0.2 * b for a, b in itertools.pairwise(found))
    train.fit(model, images(), images(10, 1), recipe, tmp_path)
    plain = tiny()
    train.fit(plain, images(), images(10, 1), replace(recipe, layer_decay=None), tmp_path / "b")
    for key, share in (("blocks.0.mlp.fc1.weight", found[1]), ("head.weight", 1.0)):
        moved, freely = (weights(m)[key] - before[key] for m in (model, plain))
        assert torch.allclose(moved, share * freely, atol=1e-6) and freely.abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_a_head_can_start_from_a_linear_probe(tmp_path: Path, kind: str) -> None:
    model, some = tiny(kind), images(60)
    with torch.no_grad():
        for parameter in model.parameters():  # features that differ between images
            parameter.add_(0.05 * torch.randn(parameter.shape))
    probed = tiny(kind)
    probed.load_state_dict(model.state_dict())
    probe.start_head(probed, some)
    head = [k for k, v in weights(model).items() if not torch.equal(v, weights(probed)[k])]
    assert len(head) == 2
    preds = models.logits_of(probed, some.images).argmax(1)
    assert (preds == some.labels).float().mean() > 0.15  # 0.1 is chance
    recipe = Recipe(1, "sgd", 0.0, batch=20)
    model.requires_grad_(False)  # batch norms keep the statistics that the probe saw
    models.head(model).requires_grad_(True)
    plain = train.fit(model, some, some, recipe, tmp_path / "new")
    taught = train.fit(model, some, some, replace(recipe, head="probe"), tmp_path / "probe")
    assert taught.val_loss[0] < plain.val_loss[0]
    assert taught.val_accuracy[0] == pytest.approx((preds == some.labels).float().mean().item())


@pytest.mark.parametrize("present", [(0, 1), (0, 2, 3), (1, 3)])
def test_a_probe_with_classes_missing_never_predicts_them(present) -> None:
    torch.manual_seed(0)
    labels = torch.tensor(present).repeat(20)
    features = torch.randn(len(labels), 6) + 3 * F.one_hot(labels, 6)
    weight, bias = probe.fit_probe(features, labels, 5)
    preds = F.linear(features, weight, bias).argmax(1)
    assert weight.shape == (5, 6) and set(preds.tolist()) <= set(present)
    assert (preds == labels).float().mean() > 0.9
