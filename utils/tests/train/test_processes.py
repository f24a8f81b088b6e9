"""Several processes end where one does: training, explaining and scoring."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from utils import env

pytest.importorskip("accelerate", reason="accelerate is not installed")

WORK = """
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from utils import data, evaluate, explain, models, train
from utils.explain import iav
from utils.train import processes
from utils.train import Recipe

torch.set_num_threads(1)
out = Path(sys.argv[1])
torch.manual_seed(0)
# plain gradient descent: Adam would blow rounding noise in vanishing gradients up to whole steps
model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=3)
model.arch, model.provenance, model.input_size = "tiny", "random", 32
model.mean, model.std = (0.5,) * 3, (0.5,) * 3
images = torch.randint(0, 256, (27, 3, 32, 32), dtype=torch.uint8)
some = data.ImageSet(images, torch.arange(27) % 3, ("a", "b", "c"), "random pixels")
recipe = Recipe(2, "sgd", 0.05, 0.0, batch=8, augment=True)
kept = train.fit(model, some, some.subset(range(13)), recipe, out)
found = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
found["loss"], found["val_loss"] = torch.tensor(kept.loss), torch.tensor(kept.val_loss)
found["maps"] = processes.sharded(lambda x: explain.explain(model, x, 1, "lrp"), images)
found["scores"] = processes.sharded(lambda x: iav.ia_scores(model, x, "saliency", targets=1), images)
found["few"] = processes.sharded(lambda x: models.logits_of(model, x), images[:1])
assert processes.rank() < processes.size()
if processes.rank() == 0:
    found["size"] = torch.tensor(processes.size())
    save_file(found, out / "found.safetensors")
"""


def work(folder: Path, processes: int) -> dict[str, torch.Tensor]:
    """What `processes` of them find, run on the CPU (gloo)."""
    script, out = folder / "work.py", folder / f"out {processes}"
    script.write_text(WORK, "utf-8")
    out.mkdir()
    words = [sys.executable]
    if processes > 1:
        # what `accelerate launch` starts on GPUs; for CPUs it wants MPI
        words += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    own = {
        "PYTHONPATH": str(env.ROOT),
        "OMP_NUM_THREADS": "1",
        "XTL_DEVICE": "cpu",
        "ACCELERATE_USE_CPU": "true",
    }
    done = subprocess.run(
        [*words, str(script), str(out)],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(out / "found.safetensors")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    folder = tmp_path_factory.mktemp("processes")
    return work(folder, 1), work(folder, 2)


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
