"""The README's Python runs, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from utils import env, models
from utils.data import shapes
from utils.train import chapter_models

README = (env.ROOT / "README.md").read_text("utf-8")
SMALL = {
    "convnext_tiny.fb_in1k": "convnext_atto",
    "vit_small_patch14_reg4_dinov2.lvd142m": "vit_mini",
}


def test_the_python_blocks_run(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    for n, (name, drawn) in enumerate(
        zip(
            ["cat's", "dog"],
            shapes.draw(torch.arange(2).repeat_interleave(20))[0].split(20),
            strict=True,
        )
    ):
        (tmp_path / "my photos" / name).mkdir(parents=True)
        for k, image in enumerate(drawn):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(
                tmp_path / "my photos" / name / f"{n}-{k}.png"
            )
    build = models.build
    monkeypatch.setattr(
        models,
        "build",
        lambda arch, num_classes, weights="none": build(SMALL.get(arch, arch), num_classes, "none"),
    )
    monkeypatch.setattr(chapter_models, "RUNS", tmp_path)
    monkeypatch.setattr(env, "RUNS", tmp_path)
    monkeypatch.setattr(env, "DATA", tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        code = block.replace("/path/to/photos", f"{tmp_path}/my photos").replace(
            'env.profile("demo")', 'env.profile("smoke")'
        )
        code = code.replace("epochs=3", "epochs=1").replace(
            'data.load("auto"', 'data.load("shapes10"'
        )
        exec(code, names)  # the reader's own words
    assert names["where_it_looked"].shape == names["which_pixels"].shape == (8, 32, 32)
    assert names["heads"].shape[:3] == (8, 12, 3) and names["heatmaps"].shape == (8, 32, 32)


def test_files_and_commands_that_are_named_exist() -> None:
    for link in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (env.ROOT / link).exists(), link
    makefile = (env.ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_codespaces_and_binder_find_what_they_start() -> None:
    settings = json.loads((env.ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    makefile = (env.ROOT / "Makefile").read_text("utf-8")
    for command in (settings["postCreateCommand"], settings["postAttachCommand"]):
        assert re.search(rf"^{command.removeprefix('make ')}:", makefile, re.M), command
    folder = env.ROOT / ".binder"
    included = (folder / "requirements.txt").read_text("utf-8").split()
    assert included[0] == "-r" and (folder / included[1]).resolve().exists()
    assert re.fullmatch(r"python-3\.\d+\n", (folder / "runtime.txt").read_text("utf-8"))


def test_the_readme_gets_the_results_between_its_marks(tmp_path: Path) -> None:
    from utils.report import readme

    file = tmp_path / "README.md"
    file.write_text("before\n<!-- results -->\nstale words\n<!-- end of results -->\nafter\n")
    results = {
        "meta": {
            "profile": "demo",
            "data": "Shapes-10",
            "weights": {s: {"vit_mini": "course"} for s in ("05_gradcam", "06_lrp")},
        },
        "04_evaluation": {
            "resnet.accuracy": 0.5,
            "resnet.accuracy_low": 0.4,
            "resnet.accuracy_high": 0.6,
        },
    }
    for _ in range(2):  # writing again changes nothing
        readme.write(results, file)
        text = file.read_text("utf-8")
        assert (
            "| ResNet34, accuracy | 0.843 | 0.500 [0.400, 0.600] |" in text
            and "stale words" not in text
        )
        assert "\n- vit_mini (05, 06): course\n" in text
        assert text.startswith("before\n") and text.endswith("after\n") and "– / –" in text
    file.write_text("no marks")
    with pytest.raises(ValueError, match=r"README\.md has no place for the results"):
        readme.write(results, file)
