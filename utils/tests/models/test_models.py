"""Architectures, heads, and where weights come from: course files, the hub's cache, paths."""

import contextlib
import hashlib
import json
import pickle
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torchvision.models import AlexNet_Weights

from utils import env, models
from utils.data import network
from utils.models import zoo

HUB_ARCH = "resnet10t.c3_in1k"
SLIM = ("resnet34_slim", "vit_mini", "alexnet_slim")


def save(model: torch.nn.Module, file: Path) -> Path:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    return file


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    """A weights folder with course weights of vit_mini for ten classes, and the model they are from."""
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    torch.manual_seed(5)
    original = models.build("vit_mini", 10, "none")
    file = tmp_path / "vit_mini.cifar10.safetensors"
    save_file({k: v.half() for k, v in original.state_dict().items()}, file)
    facts = {
        "file": file.name,
        "arch": "vit_mini",
        "classes": list("abcdefghij"),
        "summary": "supervised on nothing",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    (tmp_path / "vit_mini.cifar10.json").write_text(json.dumps(facts))
    return original, file


# ---------------------------------------------------------------- architectures and heads


@pytest.mark.parametrize(
    ("arch", "size", "mean"),
    [
        ("resnet34_slim", 128, 0.485),
        ("vit_mini", 32, 0.485),
        ("alexnet_slim", 128, 0.485),
        ("resnet34", 224, 0.485),
        ("vit_base_patch16_224.augreg_in21k", 224, 0.5),
        ("alexnet", 224, 0.485),
    ],
)
def test_every_architecture_builds_with_a_xavier_head(arch, size, mean):
    model = models.build(arch, 7, "none")
    head = models.head(model)
    assert not model.training and model.arch == arch and model.provenance == "random weights"
    assert model.input_size == size and model.mean[0] == mean and len(model.std) == 3
    assert head.out_features == 7 and (head.bias == 0).all()
    bound = (6 / (head.in_features + head.out_features)) ** 0.5  # Glorot & Bengio 2010, uniform
    assert 0.9 * bound < head.weight.abs().max() <= bound
    assert abs(head.weight.std() / (bound / 3**0.5) - 1) < 0.1
    if arch in SLIM:
        with torch.inference_mode():
            assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_slim_models_keep_the_real_structure():
    vit = models.build("vit_mini", 10, "none")
    assert len(vit.blocks) == 12 and vit.blocks[0].attn.num_heads == 3
    assert vit.patch_embed.num_patches == 64
    both = models.build("resnet34_slim", 10, "none"), timm.create_model("resnet34", num_classes=10)
    assert [(len(m.layer1), len(m.layer3)) for m in both] == [(3, 6)] * 2
    convolutions = [
        [n for n, _ in model.named_modules() if n.endswith(("conv1", "conv2"))] for model in both
    ]
    assert convolutions[0] == convolutions[1] and len(convolutions[0]) == 33


def test_the_head_follows_the_seed():
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(models.head(models.build("vit_mini", 4, "none")).weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_unknown_architecture_is_one_sentence_with_neighbours():
    with pytest.raises(ValueError, match="'resnet35'.*vit_mini.*timm name") as caught:
        models.build("resnet35", 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weights", ["none", "hub"])
def test_unknown_hub_tag_names_those_there_are(weights):
    with pytest.raises(ValueError, match="no hub weights 'resnet34.nonsense'.*resnet34.a1_in1k"):
        models.build("resnet34.nonsense", 10, weights)


@pytest.mark.parametrize("arch", SLIM)
def test_slim_models_do_not_pretend_to_have_hub_weights(arch):
    with pytest.raises(ValueError, match=f"no hub weights '{arch}'.*course"):
        models.build(arch, 10, "hub")


# ---------------------------------------------------------------- checkpoints


def test_checkpoint_round_trip_with_an_awkward_name(tmp_path):
    original = models.build("vit_mini", 6, "none")
    file = save(original, tmp_path / "it's my ümläut 写真.safetensors")
    loaded = models.build("vit_mini", 6, str(file))
    assert same(original.state_dict(), loaded.state_dict())
    assert loaded.provenance == f"checkpoint {file.name}"


@pytest.mark.parametrize(("arch", "classes"), [("alexnet_slim", 6), ("vit_mini", 5)])
def test_checkpoint_of_another_architecture_or_class_count(tmp_path, arch, classes):
    file = save(models.build("vit_mini", 6, "none"), tmp_path / "x.safetensors")
    message = f"checkpoint of another architecture than {arch} with {classes} classes"
    with pytest.raises(ValueError, match=f"x.safetensors is a {message}") as caught:
        models.build(arch, classes, file)
    assert "\n" not in str(caught.value)


def test_a_refused_checkpoint_leaves_the_model_as_it_was(tmp_path):
    file = save(models.build("vit_mini", 6, "none"), tmp_path / "x.safetensors")
    model = models.build("vit_mini", 5, "none")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError):
        models.load_state(model, file, "vit_mini")
    assert same(before, model.state_dict())


class Trap:
    """Unpickling this makes a file: proof that code ran."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
def test_a_pickle_is_never_run(tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ValueError, match="not a .safetensors file.*pickle|is damaged"):
        models.build("vit_mini", 10, file)
    assert not (tmp_path / "sprung").exists()


def test_damaged_and_missing_checkpoints(tmp_path):
    file = save(models.build("vit_mini", 6, "none"), tmp_path / "x.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="x.safetensors is damaged.*delete it"):
        models.build("vit_mini", 6, file)
    with pytest.raises(FileNotFoundError, match="no checkpoint.*gone.safetensors.*train first"):
        models.build("vit_mini", 6, tmp_path / "gone.safetensors")


# ---------------------------------------------------------------- course weights


def test_course_weights_get_a_new_head_unless_it_is_kept(shelf, capsys):
    original, file = shelf
    wanted = {k: v.half().float() for k, v in original.state_dict().items()}
    kept = models.build("vit_mini", 10, "course", keep_head=True)
    assert same(kept.state_dict(), wanted)
    fresh = models.build("vit_mini", 4)  # "auto" takes them, and says so on one line
    for key, value in fresh.state_dict().items():
        assert value.dtype == torch.float32
        if not key.startswith("head."):
            assert torch.equal(value, wanted[key]), key
    assert fresh.head.weight.shape == (4, 96) and (fresh.head.bias == 0).all()
    assert fresh.provenance == f"course weights {file.name}: supervised on nothing"
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and fresh.provenance in printed
    assert models.card("vit_mini")["classes"] == list("abcdefghij")


def test_tampered_course_weights_are_refused(shelf):
    content = bytearray(shelf[1].read_bytes())
    content[-1] ^= 1
    shelf[1].write_bytes(content)
    with pytest.raises(ValueError, match="cifar10.safetensors is not the file its card describes"):
        models.build("vit_mini", 10, "course")


def test_kept_head_needs_its_own_classes(shelf):
    with pytest.raises(ValueError, match="vit_mini with 4 classes.*head"):
        models.build("vit_mini", 4, "course", keep_head=True)


def test_course_weights_that_are_not_there(shelf):
    with pytest.raises(FileNotFoundError, match="alexnet_slim.cifar10.json.*weights='none'"):
        models.build("alexnet_slim", 10, "course")


@pytest.mark.parametrize("card", sorted(env.WEIGHTS.glob("*_*.*.json")), ids=lambda p: p.stem)
def test_the_shipped_cards_fit_their_files(card):
    facts = json.loads(card.read_text())
    assert hashlib.sha256((env.WEIGHTS / facts["file"]).read_bytes()).hexdigest() == facts["sha256"]
    assert {"arch", "data", "seed", "minutes", "test_accuracy", "versions"} <= facts.keys()
    commands = [phase["command"].split()[:4] for phase in facts["phases"]]
    allowed = [["python", "-m", "utils.train", task] for task in ("pretrain", "distil")]
    assert commands and all(command in allowed for command in commands)
    if facts["pretraining"] == "cifar10":
        assert models.build(facts["arch"], len(facts["classes"]), "course", keep_head=True)


# ---------------------------------------------------------------- the hub


def no_weights(monkeypatch, tmp_path) -> None:
    """No network, and nothing in the caches but what lies in tmp_path."""
    monkeypatch.setattr(network, "_silent", {})
    monkeypatch.setattr(constants, "ENDPOINT", "http://no-such-host.invalid")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


def test_hub_weights_come_from_a_local_cache_offline(monkeypatch, tmp_path):
    """The layout of the hub's cache: models--timm--<name>/{refs/main, snapshots/<revision>/...}."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / f"models--timm--{HUB_ARCH}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(revision)
    (home / "snapshots" / revision).mkdir(parents=True)
    torch.manual_seed(11)
    file = save(timm.create_model(HUB_ARCH), home / "snapshots" / revision / "model.safetensors")
    (file.parent / "config.json").write_text(json.dumps({"architecture": HUB_ARCH.split(".")[0]}))
    no_weights(monkeypatch, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model, wanted = models.build(HUB_ARCH, 10, "hub"), load_file(file)
    ours, head = model.state_dict(), model.pretrained_cfg["classifier"]
    assert ours.keys() == wanted.keys() and model.provenance == f"hub weights {HUB_ARCH}"
    assert all(torch.equal(ours[k], wanted[k]) for k in wanted if not k.startswith(head))
    assert models.outputs(model) == 10 and not models.head(model).bias.any()


def test_no_cache_and_no_network_says_what_to_do(monkeypatch, tmp_path):
    no_weights(monkeypatch, tmp_path)
    before = constants.HF_HUB_OFFLINE
    message = r"weights of resnet10t.*XTL_PROFILE=demo.*\.safetensors"
    with pytest.raises(RuntimeError, match=message) as caught:
        models.build(HUB_ARCH, 10)
    assert "\n" not in str(caught.value) and before == constants.HF_HUB_OFFLINE


def test_alexnet_without_network_likewise_and_never_unpickled(monkeypatch, tmp_path):
    no_weights(monkeypatch, tmp_path)
    asked = {}

    def refuse(url, **options):
        asked.update(options)
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(RuntimeError, match=r"weights of alexnet.*XTL_PROFILE=demo.*\.safetensors"):
        models.build("alexnet", 10)
    assert asked["weights_only"] is True and asked["check_hash"] is True


def test_alexnet_takes_torchvisions_weights(monkeypatch):
    from torchvision.models import alexnet

    monkeypatch.setattr(zoo, "quick_offline", lambda weights: contextlib.nullcontext())
    state, weights = alexnet().state_dict(), type(AlexNet_Weights.IMAGENET1K_V1)
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **options: state)
    model = models.build("alexnet", 10, "hub")
    assert torch.equal(model.features[0].weight, state["features.0.weight"])
    assert model.provenance == "hub weights alexnet" and models.head(model).out_features == 10


def test_a_distilled_model_gets_two_new_heads() -> None:
    """DeiT's two class tokens have a head each; both start afresh."""
    small = dict(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2)
    model = timm.create_model("deit_tiny_distilled_patch16_224", **small)
    models.new_head(model)
    assert len(models.heads(model)) == 2
    for layer in models.heads(model):
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound and not layer.bias.any()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("arch", ["vit_mini", "resnet34_slim"])
def test_a_new_head_is_not_the_one_the_course_weights_grew_from(arch, seed):
    """Built after the same seed, a head must still know nothing of the classes it is to learn."""
    torch.manual_seed(seed)
    fresh = models.head(models.build(arch, 10, "course:cifar10")).weight.flatten()
    grown = models.head(models.build(arch, 10, "course", keep_head=True)).weight.flatten()
    assert abs(torch.cosine_similarity(fresh, grown, dim=0)) < 0.25
