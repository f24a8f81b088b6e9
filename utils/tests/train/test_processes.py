"""Several processes end where one does: training, explaining and scoring."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from utils import data, env, explain, models, train
from utils.explain import iav
from utils.tests.conftest import tiny
from utils.train import Recipe, processes

pytest.importorskip("accelerate", reason="accelerate is not installed")


def work(out: Path) -> None:
    """What each process does; the first one writes what all have found."""
    # plain gradient descent: Adam would blow rounding noise in vanishing gradients up to whole steps
    recipe = Recipe(2, "sgd", 0.05, 0.0, batch=8, augment=True)
    model = tiny("vit", classes=3, num_heads=2)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (27, 3, 32, 32), dtype=torch.uint8, generator=generator)
    some = data.ImageSet(images, torch.arange(27) % 3, ("a", "b", "c"), "random pixels")
    kept = train.fit(model, some, some.subset(range(13)), recipe, out)
    results = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    results["loss"], results["val_loss"] = torch.tensor(kept.loss), torch.tensor(kept.val_loss)
    calls = {
        "maps": lambda x: explain.explain(model, x, 1, "lrp"),
        "scores": lambda x: iav.ia_scores(model, x, "saliency", targets=1),
    }
    results |= {name: processes.sharded(call, images) for name, call in calls.items()}
    results["few"] = processes.sharded(lambda x: models.logits_of(model, x), images[:1])
    assert processes.rank() < processes.size()
    if processes.rank() == 0:
        results["size"] = torch.tensor(processes.size())
        save_file(results, out / "results.safetensors")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """Results of one process, this one, and of two, on the CPU (gloo)."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    # what `accelerate launch` starts on GPUs; for CPUs it wants MPI
    words = "-m torch.distributed.run --standalone --nproc_per_node 2 -m".split()
    own = {"PYTHONPATH": str(env.ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XTL_DEVICE", "cpu")
        work(one)
        done = subprocess.run(
            [sys.executable, *words, "utils.tests.train.test_processes", str(two)],
            cwd=env.ROOT,
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return tuple(load_file(folder / "results.safetensors") for folder in (one, two))


def test_two_processes_train_to_the_weights_of_one(both: tuple[dict, dict]) -> None:
    one, two = both
    assert (one["size"].item(), two["size"].item()) == (1, 2)
    names = [name for name in one if name.startswith("model.")]
    assert len(names) > 20
    for name in [*names, "loss", "val_loss"]:
        assert (one[name] - two[name]).abs().max() < 1e-5, name
    # what the loss fell by is real, so the weights did move
    assert one["loss"].std() > 1e-3


def test_two_processes_explain_and_score_a_set_as_one_does(both: tuple[dict, dict]) -> None:
    one, two = both
    for name in ("maps", "scores", "few"):
        assert one[name].shape == two[name].shape
        assert torch.allclose(one[name], two[name], atol=1e-5), name
    assert len(one["maps"]) == 27 and len(one["few"]) == 1


if __name__ == "__main__":
    work(Path(sys.argv[1]))
