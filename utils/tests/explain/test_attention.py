"""Attention maps and rollout: against the published code and timm's own unfused attention."""

import copy
import types

import pytest
import timm
import torch

from utils import models
from utils.explain import attention
from utils.models import Question
from utils.tests.conftest import tiny
from utils.tests.explain.conftest import published_vit, stored


def inputs(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def vit():
    return models.build("vit_mini", 10, "none")


def test_rollout_is_the_published_one():
    reference = stored("lrp")
    maps = attention.maps(published_vit(reference), reference["x"].double(), rows="all")
    wanted = reference["attention_rollout"].double()
    torch.testing.assert_close(attention.rollout(maps), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_maps_are_what_timm_multiplies_with(qk_norm):
    model, seen = tiny("vit", qk_norm=qk_norm), []
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
    with pytest.raises(ValueError, match="no plain attention"):
        attention.maps(timm.create_model("eva02_tiny_patch14_224", img_size=56), inputs(1))


def test_attention_that_goes_its_own_way_is_refused(vit):
    """A forward put onto one module: the queries and keys are there, and their map is not used."""
    for way in (
        lambda self, x, *_, **__: self.proj(self.norm(self.qkv(x)[..., :96].flip(1))),
        lambda self, x, *_, **__: self.proj(self.qkv(x)[..., -96:]),
    ):
        changed = copy.deepcopy(vit)
        attn = changed.blocks[7].attn
        attn.forward = types.MethodType(way, attn)
        for rows in ("cls", "all"):
            with pytest.raises(ValueError, match="attention of block 7 does not go timm's way"):
                attention.maps(changed, inputs(2), rows)
        with pytest.raises(ValueError, match="does not go timm's way"):
            attention.gradient_rollout(changed, inputs(2), 0)
    half = copy.deepcopy(vit).bfloat16()
    assert attention.maps(half, inputs(2).bfloat16()).dtype == torch.bfloat16


def test_gradients_of_a_difference(vit):
    x = inputs(2)
    gradients = [
        attention.with_gradients(vit, x, question)[1] for question in (Question(3, 5), 3, 5)
    ]
    torch.testing.assert_close(gradients[0], gradients[1] - gradients[2], rtol=1e-3, atol=1e-5)
    for_cat, for_dog = (attention.gradient_rollout(vit, x, Question(*c)) for c in ((3, 5), (5, 3)))
    assert not torch.allclose(for_cat, for_dog)


def test_entropy_is_0_for_one_token_and_1_for_all_alike():
    assert attention.entropy(torch.eye(5)).abs().max() == 0
    torch.testing.assert_close(attention.entropy(torch.full((2, 3, 7), 0.05)), torch.ones(2, 3))
    half = torch.tensor([0.5, 0.5, 0.0, 0.0])
    torch.testing.assert_close(attention.entropy(half), torch.tensor(0.5))
    with pytest.raises(ValueError, match="two tokens"):
        attention.entropy(torch.ones(4, 1))


def test_distance_of_known_patterns():
    itself, uniform = torch.eye(17), torch.full((17, 17), 1 / 17)
    right = torch.zeros(17, 17)
    for i in range(16):  # each patch looks at its right neighbour, the last column at its left one
        right[1 + i, 1 + (i + 1 if i % 4 < 3 else i - 1)] = 1
    right[0, 0] = 1
    looks = torch.stack([itself, uniform, right])[None, None]
    found = attention.distance(looks, (4, 4))[0, 0]
    place = torch.tensor([(i // 4, i % 4) for i in range(16)]).float()
    wanted = torch.tensor([0, torch.cdist(place, place).mean(), 1])
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(attention.distance(looks, (4, 4), patch=8.0)[0, 0], 8 * found)
    with pytest.raises(ValueError, match="do not make 17 tokens"):
        attention.distance(looks, (4, 4), prefix=2)


def test_ablated_head_is_the_model_with_its_weights_zeroed(vit):
    x = inputs(2)
    with torch.no_grad():
        before = vit(x)
        with attention.ablated(vit, 4, 1):
            silenced = vit(x)
        after = vit(x)
        kept = vit.blocks[4].attn.proj.weight.clone()
        vit.blocks[4].attn.proj.weight[:, 32:64] = 0  # head 1 of 3, 32 wide
        wanted = vit(x)
        vit.blocks[4].attn.proj.weight.copy_(kept)
    torch.testing.assert_close(silenced, wanted)
    assert torch.equal(before, after) and not torch.allclose(before, silenced)
    message = r"no head 3 in a block 4: blocks are 0\.\.11, heads 0\.\.2"
    with pytest.raises(ValueError, match=message), attention.ablated(vit, 4, 3):
        pass


def test_gradients_are_the_change_of_the_logit(vit):
    """Against a finite difference: one attention weight nudged inside timm's unfused forward."""
    model, x = copy.deepcopy(vit).double(), inputs(1).double()
    _, gradients = attention.with_gradients(model, x, 2)
    attn, step, logits = model.blocks[10].attn, 1e-4, []
    attn.fused_attn = False
    for sign in (1, -1):

        def nudge(_, given, sign=sign):
            changed = given[0].clone()
            changed[0, 1, 0, 5] += sign * step
            return (changed,)

        hook = attn.attn_drop.register_forward_pre_hook(nudge)
        with torch.no_grad():
            logits.append(model(x)[0, 2])
        hook.remove()
    torch.testing.assert_close(
        gradients[0, 10, 1, 0, 5], (logits[0] - logits[1]) / (2 * step), rtol=1e-5, atol=1e-10
    )


def test_gradient_rollout_asks_for_a_class_and_leaves_nothing(vit):
    frozen = copy.deepcopy(vit).requires_grad_(False).train()
    with torch.no_grad():
        one, other = (attention.gradient_rollout(frozen, inputs(2), target) for target in (0, 1))
    assert one.shape == (2, 64) and one.min() >= 0 and not torch.allclose(one, other)
    assert frozen.training and all(block.attn.fused_attn for block in frozen.blocks)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in frozen.modules())
    torch.testing.assert_close(attention.gradient_rollout(frozen, inputs(2)[1:], 0), one[1:])


def test_collect_per_chunk_keeps_only_the_rows(vit):
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    rows = attention.collect(vit, images, chunk=2)
    assert rows.shape == (5, 12, 3, 65) and rows.dtype == torch.float32
    assert rows.untyped_storage().nbytes() == 5 * 12 * 3 * 65 * 4  # no view of anything larger
    torch.testing.assert_close(rows, attention.collect(vit, images, chunk=5))
    rolled, singly = (
        attention.collect(vit, images, "all", chunk=n, keep=attention.rollout) for n in (3, 1)
    )
    torch.testing.assert_close(rolled, singly)
    assert rolled.shape == (5, 64)
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        attention.collect(vit, images, chunk=0)


def test_rows_of_2500_images_of_a_vit_b_fit_into_300_mb():
    """Geometry from timm's own model (no memory spent), number of bytes from one kept row."""
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224")
        tokens, read = torch.empty(1, 197, 768), slice(0, 1)
        rows = [attention._rows(b.attn, b.attn.qkv(tokens), read).mean(2) for b in model.blocks]
    row = torch.stack(rows, 1)
    assert row.shape == (1, 12, 12, 197) and row.nbytes * 2500 <= 300e6
