"""The command on models of one's own: Hugging Face's folders, weights in a file, two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from utils import env, models
from utils.audit import __main__ as command
from utils.tests.conftest import images, tiny


def make() -> torch.nn.Module:
    """What the command imports by name."""
    return tiny("resnet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of four classes, a folder each."""
    for i, image in enumerate(images(12)):
        place = tmp_path / "images" / "abcd"[i % 4]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{i:02d}.png")
    return tmp_path / "images"


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(env, "FIGURES", tmp_path / "figures")
    return tmp_path / "figures" / "audit" / "try"


def audited(folder: Path, model: str, *more: str) -> None:
    words = ["--images", f"folder:{folder}", "--minutes", "0.02", "--name", "try"]
    command.main(["--model", model, *words, "--methods", "saliency", *more])


def test_a_hugging_face_folder_with_its_image_processor(
    folder: Path, tmp_path: Path, figures: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        id2label=dict(enumerate(("d", "c", "b", "a"))),  # not in alphabetical order
    )
    saved = tmp_path / "saved"
    module = transformers.ViTForImageClassification(config).eval()
    module.save_pretrained(saved)
    processor = transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.3] * 3
    )
    processor.save_pretrained(saved)

    model = models.resolve(f"hf:{saved}")
    assert (model.input_size, model.mean, model.std) == (32, (0.4,) * 3, (0.3,) * 3)
    pixels = (images(3) / 255 - 0.4) / 0.3
    with torch.no_grad():
        logits = module(pixel_values=pixels).logits
    torch.testing.assert_close(models.logits_of(model, images(3)), logits, rtol=1e-3, atol=1e-4)

    audited(folder, str(saved))
    report = json.loads((figures / "audit.json").read_text())
    assert report["outputs"] == 4 and set(report["quality"]) == {"accuracy", "ece"}
    assert "matched by name" in report["notes"][0]


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5"], ids=["timm", "torchvision"])
def test_an_architecture_with_weights_in_a_file(
    name: str, folder: Path, tmp_path: Path, figures: Path
) -> None:
    torch.manual_seed(0)
    is_timm = timm.is_model(name)
    create = timm.create_model if is_timm else torchvision.models.get_model
    module = create(name, num_classes=4).eval()
    save_file(module.state_dict(), tmp_path / "own.safetensors")
    audited(folder, name, "--weights", str(tmp_path / "own.safetensors"))
    report = json.loads((figures / "audit.json").read_text())
    assert report["outputs"] == 4 and report["quality"]
    model = models.resolve(name, weights=tmp_path / "own.safetensors")
    x = models.prepare(model, images(2))
    with torch.no_grad():
        torch.testing.assert_close(model(x), module(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5"], ids=["timm", "torchvision"])
def test_weights_that_cannot_be_had_are_one_sentence(
    name: str, folder: Path, figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*inputs: object, **options: object) -> None:
        raise OSError("the network is unreachable")

    monkeypatch.setattr("timm.models._builder.load_pretrained", nothing)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", nothing)
    with pytest.raises(SystemExit, match=r"neither cached nor can they be downloaded") as stop:
        audited(folder, name)
    assert "\n" not in str(stop.value) and not figures.exists()


WORK = """
import sys
from pathlib import Path

from utils import env

env.FIGURES = env.RUNS = Path(sys.argv[1])
from utils.audit.__main__ import main

main(sys.argv[2:])
"""


@pytest.mark.slow
def test_two_processes_answer_as_one_does(folder: Path, tmp_path: Path, figures: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    script = tmp_path / "work.py"
    script.write_text(WORK, "utf-8")
    words = ["--model", f"{__name__}:make", "--images", f"folder:{folder}", "--name", "try"]
    words += ["--methods", "saliency", "gradcam", "--minutes", "50"]
    own = {
        "PYTHONPATH": str(env.ROOT),
        "OMP_NUM_THREADS": "1",
        "XTL_DEVICE": "cpu",
        "ACCELERATE_USE_CPU": "true",
    }
    command.main(words)  # one process
    # what `accelerate launch` starts on GPUs; for CPUs it wants MPI
    crew = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *crew, str(script), str(tmp_path / "both"), *words],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    both = tmp_path / "both" / "audit" / "try"
    assert (both / "parts-1.json").exists()
    one, two = (json.loads((p / "audit.json").read_text())["parts"] for p in (figures, both))
    assert one.keys() == two.keys() and sum("p" in part for part in one.values()) > 10
    for name, part in one.items():
        for key in ("n", "score", "effect", "p", "low", "high", "references"):
            if key in part:
                assert two[name][key] == pytest.approx(part[key], abs=1e-5), (name, key)
