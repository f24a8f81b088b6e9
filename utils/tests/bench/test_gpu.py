"""The GPU measurements at tiny size on whatever device there is: the contract of gpu.json, not its speeds."""

import io
import json
import subprocess
from contextlib import redirect_stdout

import pytest
import torch

from utils.bench import gpu

RUN = subprocess.run


def one_alone(words: list[str], **options: object) -> subprocess.CompletedProcess:
    """The ViT's recipe in a process of its own, the CNN's in this one: half of the start-up time."""
    if "vit" in words:
        return RUN(words, **options)
    with redirect_stdout(io.StringIO()) as out:
        gpu.main(words[4:])
    return subprocess.CompletedProcess(words, 0, out.getvalue(), "")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    file = tmp_path_factory.mktemp("gpu") / "gpu.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", one_alone)
        patch.setenv("XTL_DATA", "digits")
        entries = gpu.run(tiny=True, file=file)
    assert json.loads(file.read_text()) == entries
    return file, {entry["name"]: entry for entry in entries}


@pytest.mark.slow
def test_every_case_is_there_with_its_fields(written):
    _, entries = written
    recipes = "cnn_recipe cnn_share vit_recipe vit_share"
    assert list(entries) == [*recipes.split(), "ig", "lrp", "attention", "iav"]
    for name, entry in entries.items():
        assert entry["ours"] > 0 and entry["peak_mb"] > 0 and entry["arch"] and entry["weights"]
        assert entry["device"] and entry["command"] == "python -m utils.bench gpu"
        if name.endswith("_share"):
            assert entry["unit"] == "operations/s" and entry["images_per_second"] > 0
            assert entry["ratio"] == entry["peer"] / entry["ours"] > 0
            assert entry["holds"] == (entry["ratio"] >= entry["target"])
        else:
            assert entry["unit"] == "seconds" and entry["holds"] == (entry["ours"] <= entry["peer"])


def test_the_share_counts_forward_and_backward():
    """A linear layer costs 2 m n forward and, for weight and input, twice that backward."""
    model = torch.nn.Conv2d(3, 8, 1, bias=False)
    model.input_size = 4
    asked = gpu._step_flops(model, 2, torch.device("cpu"))
    assert asked == 2 * (2 * 3 * 8 * 16)  # the input needs no gradient
    assert gpu.peak(torch.device("cpu"), 64) > 1e6


def test_one_case_again_keeps_the_others(written):
    file, before = written
    after = {entry["name"]: entry for entry in gpu.run("attention", tiny=True, file=file)}
    assert list(after) == list(before) and after["ig"] == before["ig"]
    with pytest.raises(ValueError, match="nothing called 'swiftness'"):
        gpu.run("swiftness", tiny=True, file=file)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    with pytest.raises(RuntimeError, match="no GPU here"):
        gpu.run(file=tmp_path / "gpu.json")
    assert not list(tmp_path.iterdir())
