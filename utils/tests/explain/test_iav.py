"""IA-scores: what they must be by definition, and where attention is known beforehand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from timm.models import VisionTransformer

from utils import data, explain, models, train
from utils.explain import attention, iav
from utils.tests.conftest import tiny


def small(**options) -> VisionTransformer:
    model = tiny("vit", seed=1, **options)
    for block in model.blocks:  # timm's first weights give nearly uniform attention
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def vit() -> VisionTransformer:
    return small()


def pictures(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(2)).byte()


def rows_of(model, images):
    return iav.attention_rows(model, data.preprocess(images, 32, model.mean, model.std))


def brief(model, images, **options):
    """SmoothGrad scores with few samples."""
    return iav.ia_scores(model, images, samples=2, **options)


@pytest.mark.parametrize("similarity", iav.SIMILARITIES)
def test_a_head_whose_attention_is_the_attribution_scores_one(vit, similarity):
    images = pictures(3)
    rows = rows_of(vit, images)
    scores = iav.ia_scores(vit, images, rows[:, 1, 2].unflatten(-1, (4, 4)), similarity)
    assert scores.shape == (3, 2, 3) and scores.dtype == torch.float32
    torch.testing.assert_close(scores[:, 1, 2], torch.ones(3))
    others = torch.ones(2, 3, dtype=torch.bool)
    others[1, 2] = False
    assert (scores[:, others] < 0.999).all()


@pytest.mark.parametrize("similarity", iav.SIMILARITIES)
def test_scaling_either_map_changes_nothing(vit, similarity):
    images, maps = pictures(2), torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))
    once, more = (iav.ia_scores(vit, images, factor * maps, similarity) for factor in (1, 70))
    torch.testing.assert_close(once, more)
    a, b = maps.flatten(1)[:, :30], maps.flatten(1)[:, 30:60]
    expected = iav.similarity_of(a, b, similarity)
    torch.testing.assert_close(iav.similarity_of(1e-4 * a, b, similarity), expected)
    torch.testing.assert_close(iav.similarity_of(a, 1e4 * b, similarity), expected)


@pytest.mark.parametrize("attribution", ["smoothgrad", "gradcam", "integrated_gradients", "lrp"])
def test_chunks_change_nothing(vit, attribution):
    quick = {"smoothgrad": {"samples": 2}, "integrated_gradients": {"steps": 3}}
    images, options = pictures(5), quick.get(attribution, {})
    whole = iav.ia_scores(vit, images, attribution, **options)
    assert whole.isfinite().all() and whole.std() > 0
    for chunk in (1, 2):
        parts = iav.ia_scores(vit, images, attribution, chunk=chunk, **options)
        torch.testing.assert_close(parts, whole)


def test_permuted_heads_permute_the_scores(vit):
    """Reordering a block's heads leaves the function, hence the attribution, as it was."""
    other, order = small(), torch.tensor([2, 0, 1])
    attn, width = other.blocks[1].attn, other.blocks[1].attn.head_dim
    with torch.no_grad():
        for parameter in (attn.qkv.weight, attn.qkv.bias):
            parameter.copy_(parameter.unflatten(0, (3, 3, width))[:, order].flatten(0, 2))
        attn.proj.weight.copy_(attn.proj.weight.unflatten(1, (3, width))[:, order].flatten(1))
    before, after = brief(vit, pictures(3)), brief(other, pictures(3))
    torch.testing.assert_close(after[:, 0], before[:, 0])
    torch.testing.assert_close(after[:, 1], before[:, 1, order])
    assert not torch.allclose(after[:, 1], before[:, 1])


def test_similarities_are_scipys_also_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 6, 40)).astype(float)
    for name, peer in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        ours = iav.similarity_of(torch.from_numpy(a), torch.from_numpy(b), name)
        np.testing.assert_allclose(ours, [peer(*pair).statistic for pair in zip(a, b, strict=True)])
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(iav.similarity_of(torch.from_numpy(a), torch.from_numpy(b)), cosine)


def test_a_map_that_prefers_no_place_has_no_correlation():
    some, flat = torch.rand(196), torch.full((196,), 1 / 196)
    for similarity in ("pearson", "spearman"):
        assert iav.similarity_of(flat, some, similarity) == 0
    assert iav.similarity_of(torch.zeros(196), some) == 0


def test_uniform_attention_scores_the_floor():
    model = small()
    for block in model.blocks:  # equal queries and keys for all tokens: uniform attention
        torch.nn.init.zeros_(block.attn.qkv.weight)
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = maps.mean((1, 2)) / maps.square().mean((1, 2)).sqrt()
    torch.testing.assert_close(iav.floor(maps), expected)
    scores = iav.ia_scores(model, pictures(3), maps)
    torch.testing.assert_close(scores, expected[:, None, None].expand_as(scores))
    torch.testing.assert_close(iav.head_entropy(model, pictures(3)), torch.ones(3, 2, 3))


def test_attributions_are_the_methods_maps_on_the_patch_grid(vit):
    images = pictures(2)
    ours = iav.attributions(vit, images, "integrated_gradients", targets=1, steps=3)
    full = explain.explain(vit, images, 1, "integrated_gradients", steps=3)
    wanted = torch.nn.functional.avg_pool2d(full.abs()[:, None], 8)[:, 0]
    torch.testing.assert_close(ours, wanted)


def test_pooling_keeps_the_mean_where_patches_cut_pixels():
    maps = -torch.rand(2, 32, 20, generator=torch.Generator().manual_seed(0))
    pooled = iav.to_grid(maps, (14, 7))
    torch.testing.assert_close(pooled.mean((1, 2)), maps.abs().mean((1, 2)))
    edge = torch.zeros(1, 3, 1)
    edge[0, 1] = 1.0  # the middle one of three pixels lies half in each of two patches
    torch.testing.assert_close(iav.to_grid(edge, (2, 1))[0, :, 0], torch.tensor([1 / 3, 1 / 3]))


def test_true_masks_are_an_attribution(vit):
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[:, :16] = True
    rows = rows_of(vit, pictures(2))
    wanted = rows[..., :8].sum(-1) / rows.norm(dim=-1) / 8**0.5
    torch.testing.assert_close(iav.ia_scores(vit, pictures(2), masks), wanted)


@pytest.mark.parametrize(
    "options",
    [dict(class_token=False, global_pool="avg"), dict(reg_tokens=2)],
    ids=["mean query", "registers"],
)
def test_other_tokens_are_left_out(options):
    model = small(**options)
    x = data.preprocess(pictures(2), 32, model.mean, model.std)
    whole = attention.maps(model, x, rows="all")
    wanted = whole.mean(-2) if model.cls_token is None else whole[..., 0, 3:]
    torch.testing.assert_close(iav.attention_rows(model, x), wanted)
    assert iav.ia_scores(model, pictures(2), torch.rand(2, 4, 4)).shape == (2, 2, 3)


def test_head_ranges_follow_the_analysis_of_variance():
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(4, 3, generator=generator)
    scores = heads + 0.5 * torch.randn(60, 4, 3, generator=generator)
    found = iav.head_ranges(scores, n=200)
    ratio = stats.f_oneway(*scores.flatten(1).T.numpy()).statistic
    assert found.icc == pytest.approx((ratio - 1) / (ratio + 59), rel=1e-4)
    assert found.low < found.icc < found.high and found.low > 0.5
    assert found.icc == pytest.approx(found.between / (found.between + found.within))
    mixed = scores.flatten(1).gather(1, torch.rand(60, 12, generator=generator).argsort(1))
    assert abs(iav.head_ranges(mixed.view(60, 4, 3), n=10).icc) < 0.1


def test_late_blocks_are_the_last_third():
    scores = torch.arange(12.0)[None, :, None].expand(2, 12, 3)
    torch.testing.assert_close(iav.late_mean(scores), torch.full((2,), 9.5))
    torch.testing.assert_close(iav.late_mean(scores[:, :2]), torch.ones(2))


def test_bad_requests_are_refused(vit):
    images = pictures(2)
    with pytest.raises(ValueError, match="no attribution 'shap' .*: use one of saliency"):
        iav.ia_scores(vit, images, "shap")
    with pytest.raises(ValueError, match="no similarity 'dot': use one of cosine"):
        iav.ia_scores(vit, images, similarity="dot")
    with pytest.raises(ValueError, match="smoothgrad has no option 'steps'"):
        iav.ia_scores(vit, images, steps=3)
    with pytest.raises(ValueError, match=r"\(3, 4, 4\): give a map .* for each of the 2 images"):
        iav.ia_scores(vit, images, torch.rand(3, 4, 4))
    with pytest.raises(ValueError, match="ResNet has no patches"):
        iav.ia_scores(models.build("resnet34_slim", 3, "none"), images)
    with pytest.raises(ValueError, match="One image shows no variation"):
        iav.head_ranges(torch.rand(1, 2, 3))


def test_epochs_can_be_kept(tmp_path):
    """The weights after each epoch; those that fit leaves in the model are among them."""
    pool = data.ImageSet(pictures(8), torch.arange(8) % 4, tuple("abcd"), "random")
    recipe = replace(train.RECIPES["smoke", "vit"], epochs=2, batch=4)
    model = small()
    train.fit(model, pool, pool, recipe, tmp_path, keep_epochs=True)
    files = sorted(tmp_path.glob("epoch_*"))
    assert [file.stem for file in files] == ["epoch_01", "epoch_02"]
    best = [small(), small()]
    for other, file in zip(best, files, strict=True):
        models.load_state(other, file, "small")
    states = [other.state_dict()["head.weight"] for other in best]
    assert any(torch.equal(state, model.state_dict()["head.weight"]) for state in states)
    assert not torch.equal(*states)
