"""Attention maps and rollout: against the published code and timm's own unfused attention."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models import VisionTransformer

from utils import attention, models


def inputs(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def vit():
    return models.build("vit_mini", 10, "none")


def test_rollout_is_the_published_one():
    stored = np.load(Path(__file__).with_name("lrp_reference.npz"))
    model = VisionTransformer(img_size=32, patch_size=4, embed_dim=64, depth=3, num_heads=4, num_classes=10)
    model.load_state_dict({k[3:]: torch.from_numpy(stored[k]) for k in stored.files if k.startswith("sd/")})
    maps = attention.maps(model.double(), torch.from_numpy(stored["x"]).double(), rows="all")
    torch.testing.assert_close(
        attention.rollout(maps), torch.from_numpy(stored["attention_rollout"]).double(), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("qk_norm", [False, True])
def test_maps_are_what_timm_multiplies_with(qk_norm):
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=3, qk_norm=qk_norm
    ).eval()
    seen = []
    for block in model.blocks:
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        block.attn.fused_attn = False  # only the unfused path shows its maps to the dropout
    with torch.no_grad():
        model(inputs(2))
    wanted = torch.stack(seen, 1)
    for block in model.blocks:
        block.attn.fused_attn = True
    torch.testing.assert_close(attention.maps(model, inputs(2), "all"), wanted)
    torch.testing.assert_close(attention.maps(model, inputs(2), "cls"), wanted[..., 0, :])


def test_shapes_sums_and_batches(vit):
    rows = attention.maps(vit, inputs(3))
    assert rows.shape == (3, 12, 3, 65) and not rows.requires_grad
    torch.testing.assert_close(rows.sum(-1), torch.ones(3, 12, 3))
    torch.testing.assert_close(attention.maps(vit, inputs(3)[1:2]), rows[1:2])
    heat = attention.rollout(attention.maps(vit, inputs(3), "all"))
    assert heat.shape == (3, 64) and heat.min() >= 0 and heat.sum(1).max() < 1


def test_cls_rows_never_make_a_square_matrix(vit):
    class Widest(torch.utils._python_dispatch.TorchDispatchMode):
        square = False

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            self.square |= isinstance(out, torch.Tensor) and out.shape[-2:] == (65, 65)
            return out

    for rows, expected in (("cls", False), ("all", True)):
        with Widest() as watch:
            attention.maps(vit, inputs(1), rows)
        assert watch.square is expected


def test_model_is_left_as_it_was(vit):
    vit.train()
    attention.maps(vit, inputs(1))
    assert vit.training and not any(m._forward_hooks for m in vit.modules())
    vit.eval()


def test_bad_requests_are_refused(vit):
    with pytest.raises(ValueError, match="no attention rows 'some'"):
        attention.maps(vit, inputs(1), rows="some")
    with pytest.raises(ValueError, match="ResNet has no plain attention"):
        attention.maps(models.build("resnet34_slim", 3, "none"), inputs(1))
    headless = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, class_token=False, global_pool="avg"
    )
    with pytest.raises(ValueError, match="no CLS token"):
        attention.maps(headless, inputs(1))
    assert attention.maps(headless, inputs(1), "all").shape == (1, 1, 2, 16, 16)
    with pytest.raises(ValueError, match="no plain attention"):
        attention.maps(timm.create_model("eva02_tiny_patch14_224", img_size=56), inputs(1))
