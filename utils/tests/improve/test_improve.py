"""The feedback loop: analysts, generators, arms, and what the comparison may say."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image

from utils import data, models
from utils.data import pairs
from utils.evaluate import Predictions, metrics
from utils.improve import (
    RecomposeGenerator,
    ShapesGenerator,
    arms,
    checks,
    comparison,
    experiment,
    findings,
    generators,
    late,
    moves,
    recompose,
)
from utils.improve.claude import KEY, ClaudeAnalyst, Transport
from utils.improve.diffusion import DiffusionGenerator
from utils.improve.findings import Evidence, Finding, RuleAnalyst
from utils.plots import feedback
from utils.tests.conftest import tiny as network
from utils.train import Recipe

SECRET = "sk-planted-0123456789"


def tiny(classes: int = 2) -> torch.nn.Module:
    return network(classes=classes, num_heads=2)


def pair(n: int, seed: int = 0, level: tuple[int, int] = (60, 200)) -> data.ImageSet:
    """Two noisy classes that a tiny network can tell: a bright patch above, or below."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = torch.randint(*level, (n, 3, 32, 32), generator=rng, dtype=torch.uint8)
    for i, label in enumerate(labels):
        images[i, :, 16 * int(label) : 16 * int(label) + 16] //= 2
    return data.ImageSet(images, labels, ("cat", "dog"), "made up")


def evidence(n: int = 40, failed: list[int] | None = None) -> Evidence:
    some = pair(n)
    failed = [0, 1, 2, 3] if failed is None else failed
    predicted = some.labels.clone()
    predicted[failed] = 1 - predicted[failed]
    maps = torch.rand(n, 32, 32, generator=torch.Generator().manual_seed(1))
    maps[:, 8:20, 10:24] += 2
    sure, mistakes = torch.full((n,), 0.8), torch.tensor(failed)
    return Evidence(some.images, some.labels, predicted, sure, maps, some.classes, mistakes)


def sources(n: int = 12) -> RecomposeGenerator:
    some = evidence(n, [])
    return RecomposeGenerator(some.images.roll(1, 3), some.labels, recompose.cut_out(some.maps))


# ---------------------------------------------------------------- the offline analyst


def test_a_planted_weakness_is_found_and_counted() -> None:
    """Dark images of one class fail, and nothing else."""
    found = evidence(80)
    dark = torch.arange(80)[(torch.arange(80) % 2 == 1) & (torch.arange(80) < 40)]
    images = found.images.clone()
    images[dark] //= 4
    predicted = found.labels.clone()
    predicted[dark] = 0
    planted = replace(found, images=images, predicted=predicted, failed=dark)
    findings = RuleAnalyst(clusters=1).analyse(planted)
    assert len(findings) == 1
    (finding,) = findings
    assert (finding.label, finding.other, sorted(finding.members)) == (1, 0, dark.tolist())
    assert "20 of 40 images of dog are taken for cat" in finding.text
    assert "dark" in finding.text and "bright;" not in finding.text
    assert "20 of 20 fail, of the others 0 of 20" in finding.text
    assert "dog" in finding.prompt and "dark" in finding.prompt
    assert len(finding.prompt.split()) <= 100


def test_mistakes_of_two_kinds_are_two_findings() -> None:
    found = evidence(120)
    own = torch.arange(0, 120, 2)
    dark, bright = own[:16], own[16:32]
    images = found.images.clone()
    images[dark] //= 4
    images[bright] = 255 - (255 - images[bright]) // 4
    predicted = found.labels.clone()
    predicted[own[:32]] = 1
    planted = replace(found, images=images, predicted=predicted, failed=own[:32])
    findings = RuleAnalyst(clusters=2).analyse(planted)
    assert sorted(sorted(f.members) for f in findings) == [dark.tolist(), bright.tolist()]
    words = {"dark" if f.members[0] in dark else "bright": f.text for f in findings}
    assert "dark" in words["dark"] and "and are bright" in words["bright"]


def test_mistakes_like_all_others_are_said_to_be_unexplained() -> None:
    texts = [f.text for f in RuleAnalyst(notable=5.0).analyse(evidence())]
    assert texts and all("nothing measured here explains them" in text for text in texts)


def test_without_a_recognised_image_nothing_is_said_to_look_like_one() -> None:
    own = list(range(0, 40, 2))
    texts = [f.text for f in RuleAnalyst().analyse(evidence(40, own))]
    nobody = "none is recognised, so there is nothing to compare them with"
    assert texts and all(nobody in text for text in texts)
    texts = [f.text for f in RuleAnalyst(notable=0.0).analyse(evidence(40, own[2:]))]
    assert texts and all("usual for all images of cat" in text for text in texts)


def test_no_mistake_and_one_class_are_said(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="no mistake to analyse: give more validation images"):
        RuleAnalyst().analyse(evidence(failed=[]))
    some = pair(12)
    with pytest.raises(ValueError, match="All 6 images .* the class cat: add images of another"):
        findings.gather(tiny(), some.subset(range(0, 12, 2)))
    model = tiny()
    images = torch.cat([some.images, some.images])
    logits = models.logits_of(model, images)
    with torch.no_grad():  # an untrained head may know one class only: half of the answers turn
        model.head.bias += torch.tensor([0.0, 1.0]) * (logits[:, 0] - logits[:, 1]).median()
    right = replace(some, images=images, labels=models.logits_of(model, images).argmax(1))
    found = findings.gather(model, right, fallback=3)
    assert found.near and len(found.failed) == 3
    least = found.confidence.sort().values[:4].tolist()
    assert set(found.confidence[found.failed].tolist()) <= set(least)
    printed = capsys.readouterr().out
    assert "No mistake among 24 validation images: the loop works on the 3 least" in printed
    assert "are least certain" in RuleAnalyst().analyse(found)[0].text


def test_gathered_evidence_lists_the_mistakes_by_confidence() -> None:
    model, some = tiny(), pair(16)
    found = findings.gather(model, some)
    said = Predictions(models.logits_of(model, some.images), some.labels, some.classes)
    assert sorted(found.failed.tolist()) == torch.nonzero(~said.correct).flatten().tolist()
    assert (found.confidence[found.failed].diff() <= 0).all()
    assert found.maps.shape == (16, 32, 32)


# ---------------------------------------------------------------- the service


class Fake:
    """A local stand-in for the service: answers from a list of behaviours, the last one for ever."""

    def __init__(self, *answers: object):
        self.answers, self.requests = list(answers), []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fake.requests.append((dict(self.headers), json.loads(body)))
                answer = fake.answers.pop(0) if len(fake.answers) > 1 else fake.answers[0]
                status, payload = answer if isinstance(answer, tuple) else (200, answer)
                if payload == "hang":
                    time.sleep(0.6)
                    payload = reply("too late")
                raw = payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(raw)))
                    self.end_headers()
                    self.wfile.write(raw)
                except OSError:  # the client has given up
                    pass

            def log_message(self, *words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        serve = lambda: self.server.serve_forever(poll_interval=0.02)  # noqa: E731
        threading.Thread(target=serve, daemon=True).start()


def reply(text: str | None, stop: str = "end_turn") -> dict:
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "fake",
        "stop_reason": stop,
        "stop_sequence": None,
        "content": [] if text is None else [{"type": "text", "text": text}],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Fake]]:
    pytest.importorskip("anthropic", reason="anthropic is not installed")
    monkeypatch.setenv(KEY, SECRET)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    made: list[Fake] = []

    def start(*answers: object) -> Fake:
        made.append(Fake(*answers))
        return made[-1]

    yield start
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def asking(fake: Fake, folder: Path, **options: object) -> ClaudeAnalyst:
    options = dict(timeout=60.0, retries=0) | options
    limit = options.pop("limit", 2)
    return ClaudeAnalyst(limit, Transport(base_url=fake.url, cache=folder, **options))


def test_two_requests_for_each_mistake_and_none_on_a_rerun(fake, tmp_path, capsys) -> None:
    service = fake(*map(reply, ("It looked at the sky.", "A brown cat in the dark.", "B", "C")))
    found = asking(service, tmp_path).analyse(evidence())
    assert [(f.label, f.other, f.members, f.text, f.prompt) for f in found] == [
        (0, 1, (0,), "It looked at the sky.", "A brown cat in the dark."),
        (1, 0, (1,), "B", "C"),
    ]
    assert len(service.requests) == 4
    first, second = (body["messages"][0]["content"] for _, body in service.requests[:2])
    assert [block["type"] for block in first] == ["image", "image", "text"]
    assert "of the class cat, and said dog" in first[2]["text"]
    assert "It looked at the sky." in second[0]["text"] and "100 words" in second[0]["text"]
    for head, _ in service.requests:  # the package's versions differ in which header holds the key
        carrying = {name.lower() for name, value in head.items() if SECRET in value}
        assert carrying and carrying <= {"x-api-key", "authorization"}
    assert "4 requests about 2 mistakes" in capsys.readouterr().out
    assert asking(service, tmp_path).analyse(evidence()) == found
    assert len(service.requests) == 4, "a rerun sends nothing"
    assert "dollars" not in capsys.readouterr().out


def test_a_rerun_from_the_cache_needs_no_key(fake, tmp_path, monkeypatch) -> None:
    service = fake(reply("A"))
    found = asking(service, tmp_path).analyse(evidence())
    monkeypatch.delenv(KEY)
    assert asking(service, tmp_path).analyse(evidence()) == found


def test_the_cost_is_printed_before_anything_is_sent_and_limited(
    fake, tmp_path, capsys, monkeypatch
) -> None:
    service = fake(reply("A"))
    seen = []
    reply_of = Transport.reply

    def noted(*inputs, **options):
        seen.append(capsys.readouterr().out)
        return reply_of(*inputs, **options)

    monkeypatch.setattr(Transport, "reply", noted)
    asking(service, tmp_path).analyse(evidence())
    assert "dollars" in seen[0]
    with pytest.raises(ValueError, match="may cost .* more than the 0.00 allowed: lower limit"):
        asking(service, tmp_path / "other", most=0.0001).analyse(evidence())
    assert len(service.requests) == 4


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("hang", r"no answer within 0\.2 seconds"),
        (reply("no", stop="refusal"), "the service declined to answer"),
        (reply(None), "an empty reply"),
        ("{not json", "a reply that is not in the agreed form"),
        ({"hello": 1}, "a reply that is not in the agreed form"),
        ([1, 2], "a reply that is not in the agreed form"),
        ((401, {"error": {"message": f"invalid key {SECRET}"}}), "answers with the error 401"),
        ((529, {"error": {"message": "busy"}}), "the service answers with the error 529"),
    ],
)
def test_no_usable_reply_is_one_sentence_with_a_way_on(fake, tmp_path, answer, words) -> None:
    service = fake(answer)
    message = rf"gave no usable reply \(.*{words}\): try later, or use RuleAnalyst"
    with pytest.raises(RuntimeError, match=message) as caught:
        asking(service, tmp_path, timeout=0.2 if answer == "hang" else 60.0).analyse(evidence())
    assert SECRET not in str(caught.value)
    assert not list(tmp_path.glob("*.json")), "nothing unusable is kept"


def test_a_service_that_is_down_is_said(fake, tmp_path) -> None:
    service = fake(reply("A"))
    service.server.shutdown()
    service.server.server_close()
    with pytest.raises(RuntimeError, match="the service cannot be reached"):
        asking(service, tmp_path).analyse(evidence())


def test_one_refusal_leaves_the_others(fake, tmp_path, capsys) -> None:
    service = fake(reply("no", stop="refusal"), reply("A"), reply("P"))
    found = asking(service, tmp_path).analyse(evidence())
    assert [f.members for f in found] == [(1,)]
    printed = capsys.readouterr().out
    assert "1 of 2 mistakes have no finding: the service declined to answer" in printed


@pytest.mark.parametrize(
    "bad", [(500, {"error": {}}), reply(None), "{not json", reply("word " * 130)]
)
def test_a_bad_reply_is_asked_for_again(fake, tmp_path, bad) -> None:
    service = fake(reply("A"), bad, reply("P"))
    found = asking(service, tmp_path, limit=1, retries=1).analyse(evidence())
    assert [(f.text, f.prompt) for f in found] == [("A", "P")]
    assert len(service.requests) == 3


def test_the_key_stays_in_the_environment(fake, tmp_path, capsys, caplog) -> None:
    """A service that echoes the key, logging at its most talkative: nothing of it anywhere."""
    caplog.set_level(logging.DEBUG)
    service = fake(reply(f"Your key is {SECRET}"), reply(f"Draw {SECRET}"))
    asked = asking(service, tmp_path, limit=1)
    found = asked.analyse(evidence())
    shown = capsys.readouterr()
    kept = "".join(f.read_text() for f in tmp_path.rglob("*") if f.is_file())
    told = shown.out + shown.err + caplog.text + repr(asked) + repr(found)
    assert kept and SECRET not in kept + told


def test_no_key_and_no_package_are_said(tmp_path, monkeypatch) -> None:
    pytest.importorskip("anthropic", reason="anthropic is not installed")
    monkeypatch.delenv(KEY, raising=False)
    analyst = ClaudeAnalyst(service=Transport(cache=tmp_path))
    with pytest.raises(RuntimeError, match=f"no key in the environment variable {KEY}: set it, or"):
        analyst.analyse(evidence())
    monkeypatch.setitem(sys.modules, "anthropic", None)
    with pytest.raises(RuntimeError, match="anthropic is not installed: run pip install anthropic"):
        analyst.analyse(evidence())
    with pytest.raises(ValueError, match="There is no mistake to analyse"):
        analyst.analyse(evidence(failed=[]))


# ---------------------------------------------------------------- generators


def test_recomposed_images_keep_label_and_size_and_are_new() -> None:
    found, maker = evidence(), sources()
    findings = RuleAnalyst().analyse(found)
    made = generators.generate(maker, found, findings, 30)
    assert made.images.shape == (30, 3, 32, 32) and made.images.dtype == torch.uint8
    assert torch.equal(made.labels, found.labels[made.requested_by])
    assert set(made.requested_by.tolist()) == {0, 1, 2, 3}
    for old in torch.cat([maker.images, found.images]):
        assert ((made.images.float() - old.float()).abs().mean((1, 2, 3)) > 3).all()
    again, other = (generators.generate(maker, found, findings, 30, seed) for seed in (0, 1))
    assert torch.equal(made.images, again.images) and not torch.equal(made.images, other.images)


def test_recomposed_images_stand_in_the_light_and_place_of_those_that_failed() -> None:
    found, maker = evidence(), sources()
    images, maps = found.images.clone(), torch.zeros_like(found.maps)
    images[:4] //= 4
    maps[:, 2:12, 18:30] = 1
    dark = replace(found, images=images, maps=maps)
    made = generators.generate(maker, dark, RuleAnalyst().analyse(dark), 24)
    wanted = dark.images[made.requested_by].float().mean((1, 2, 3))
    assert ((made.images.float().mean((1, 2, 3)) - wanted).abs() < 12).all()
    layer = torch.cat([maker.images.float() / 255, maker.alpha[:, None]], 1)
    shift = torch.tensor([[-0.4, 0.3]]).repeat(len(layer), 1)
    moved = recompose._moved(layer, shift, torch.ones(len(layer)), np.zeros(len(layer), bool))[:, 3]
    gone = findings.centre(moved) - findings.centre(maker.alpha)
    assert (gone[:, 0] < -0.2).all() and (gone[:, 1] > 0.15).all()


def test_cut_out_covers_its_share_where_the_map_is() -> None:
    maps = evidence().maps
    alpha = recompose.cut_out(maps, share=0.25)
    assert ((alpha >= 0) & (alpha <= 1.0001)).all()
    assert (alpha.mean((1, 2)) - 0.25).abs().max() < 0.05
    assert (alpha[:, 10:18, 12:22].mean((1, 2)) > 0.7).all()


def test_random_findings_ask_for_the_same_classes_but_not_the_same_images() -> None:
    found = evidence()
    findings = RuleAnalyst().analyse(found)
    chance = generators.random_findings(found, findings, 0)
    kinds = [[(f.label, len(f.members)) for f in each] for each in (chance, findings)]
    assert kinds[0] == kinds[1]
    assert all(found.labels[i] == f.label for f in chance for i in f.members)
    asked = {i for f in chance for i in f.members}
    assert asked != {0, 1, 2, 3}


def test_shapes_are_drawn_as_the_finding_asks() -> None:
    two = pairs.shapes_pair("test").subset(range(40))
    darkest = two.images.float().mean((1, 2, 3)).argsort()[:4]
    maps, sure = two.masks.float(), torch.full((40,), 0.9)
    known = (two.images, two.labels, 1 - two.labels, sure, maps, two.classes)
    found = Evidence(*known, darkest, two.masks)
    findings = [Finding(int(two.labels[i]), 0, (int(i),), "", "") for i in darkest]
    made = generators.generate(ShapesGenerator(), found, findings, 24)
    assert torch.equal(made.labels, found.labels[made.requested_by])
    assert made.images.float().mean() < two.images.float().mean()
    wanted = found.images[made.requested_by].float().mean((1, 2, 3))
    free = generators.generate(ShapesGenerator(candidates=1), found, findings, 24)
    away = [(m.images.float().mean((1, 2, 3)) - wanted).abs().mean() for m in (made, free)]
    assert away[0] < away[1]


class Stub:
    def __init__(self, draw: Callable[[int], torch.Tensor]):
        self.draw, self.asked = draw, 0

    def make(self, evidence: Evidence, requests: list, seed: int) -> torch.Tensor:
        self.asked += len(requests)
        return torch.stack([self.draw(k) for k in range(len(requests))])


def test_unusable_images_are_dropped_said_and_asked_for_again(capsys) -> None:
    found = evidence()
    findings = RuleAnalyst().analyse(found)
    good = torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8)
    blank = torch.full((3, 32, 32), 9, dtype=torch.uint8)
    some = Stub(lambda k: (good, blank, found.images[0])[k % 3])
    made = generators.generate(some, found, findings, 6)
    assert some.asked > 6 and len(made.labels) == len(made.images) == len(made.requested_by) < 6
    assert "unusable images (blank or copies)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no usable image .*: use RecomposeGenerator, or mend the"):
        generators.generate(Stub(lambda k: blank), found, findings, 4)
    with pytest.raises(ValueError, match=r"uint8 \(3, 32, 32\), and these are torch.float32"):
        generators.generate(Stub(lambda k: good.float()), found, findings, 4)
    with pytest.raises(ValueError, match="There is no finding to generate images for"):
        generators.generate(some, found, [], 4)


def test_of_a_class_never_recognised_the_likeliest_are_cut_out_and_that_is_said(capsys) -> None:
    model, some = tiny(), pair(12)
    with torch.no_grad():
        model.head.bias += torch.tensor([10.0, 0.0])
    maker = RecomposeGenerator.of(model, some, per_class=2)
    printed = capsys.readouterr().out
    assert "recognises no training image of dog: the objects cut out may be poor" in printed
    chances = models.logits_of(model, some.images).softmax(1)[:, 1]
    dogs = torch.nonzero(some.labels == 1).flatten()
    likeliest = dogs[chances[dogs].argsort(descending=True)[:2]]
    assert torch.equal(maker.images[maker.labels == 1], some.images[likeliest])
    with pytest.raises(ValueError, match="There is no training image of dog to cut out: add some"):
        RecomposeGenerator.of(model, some.subset(range(0, 12, 2)))


def test_diffusion_paints_the_prompts_at_the_right_size(monkeypatch) -> None:
    prompts = []

    def paint(prompt: str, num_inference_steps: int, generator: torch.Generator) -> SimpleNamespace:
        prompts.append(prompt)
        pixels = np.random.default_rng(len(prompts)).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        return SimpleNamespace(images=[Image.fromarray(pixels)])

    found = evidence()
    findings = RuleAnalyst().analyse(found)
    made = generators.generate(DiffusionGenerator(pipeline=paint), found, findings, 4)
    assert made.images.shape == (4, 3, 32, 32)
    assert set(prompts) == {f.prompt for f in findings}
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RuntimeError, match="not installed: run pip install diffusers, or use Rec"):
        DiffusionGenerator().make(found, [(findings[0], 0)], 0)
    there = SimpleNamespace(AutoPipelineForText2Image=None)
    monkeypatch.setitem(sys.modules, "diffusers", there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs a CUDA GPU: use RecomposeGenerator"):
        DiffusionGenerator().make(found, [(findings[0], 0)], 0)


# ---------------------------------------------------------------- arms


def test_every_arm_sees_as_many_images_and_only_its_own_kind() -> None:
    some, found = pair(20), evidence()
    findings = RuleAnalyst().analyse(found)
    made = generators.generate(sources(), found, findings, 8)
    other = generators.generate(sources(), found, findings, 8, seed=7)
    asked = {"both": made} | dict.fromkeys(("other_maps", "uniform_maps"), other)
    asked["random_generated"] = other
    sets = {arm: arms.training_set(arm, some, asked, 0) for arm in arms.ARMS[1:]}
    assert {len(s) for s in sets.values()} == {28}

    def raw(images: torch.Tensor) -> list[bytes]:
        return [image.numpy().tobytes() for image in images]

    known = dict(zip(raw(some.images), some.labels.tolist(), strict=True))
    ours, bytes_of = set(raw(made.images)), {arm: raw(s.images) for arm, s in sets.items()}
    assert set(bytes_of["generated"]) == ours
    assert set(bytes_of["both"]) == ours | set(known) and bytes_of["both"] == bytes_of["lora"]
    assert set(bytes_of["more_steps"]) == set(known)
    for arm in ("random_generated", "other_maps", "uniform_maps"):
        assert not set(bytes_of[arm]) & ours
    assert not set(bytes_of["augmented"][20:]) & (ours | set(known))
    assert [known[b] for b in bytes_of["more_steps"]] == sets["more_steps"].labels.tolist()
    with pytest.raises(ValueError, match="There is no arm 'magic' to retrain"):
        arms.training_set("magic", some, asked, 0)


def test_lora_starts_as_the_same_model_trains_few_weights_and_merges_exactly(monkeypatch) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    model, some = tiny(), pair(8)
    names, before = list(model.state_dict()), models.logits_of(model, some.images)
    arms.add_lora(model, rank=2)
    assert torch.allclose(models.logits_of(model, some.images), before)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in n or n.startswith("head.") for n in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    moved = models.logits_of(model, some.images)
    assert not torch.allclose(moved, before, atol=1e-3)
    arms.merge_lora(model)
    assert list(model.state_dict()) == names and all(p.requires_grad for p in model.parameters())
    assert torch.allclose(models.logits_of(model, some.images), moved, atol=1e-4)
    with pytest.raises(ValueError, match="LoRA is for the blocks of a Vision Transformer"):
        arms.add_lora(models.build("resnet34_slim", 2, "none"))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RuntimeError, match="run pip install peft, or leave the arm lora"):
        arms.add_lora(tiny())


# ---------------------------------------------------------------- the loop

RECIPE = Recipe(1, "adamw", 3e-3, 0.01, batch=8, schedule="onecycle")


def plan(**changes: object) -> experiment.Plan:
    made = lambda model, some, seed: sources()  # noqa: E731
    four = ("baseline", "both", "lora", "more_steps")
    how = ("tiny_vit", "none", RECIPE, RECIPE, RuleAnalyst(), made, 8, 5e-3)
    return replace(experiment.Plan(*how, arms=four), **changes)


def parts(poisoned: bool = False) -> data.Splits:
    test = pair(16, 3)
    if poisoned:
        test = replace(test, labels=1 - test.labels)
    return data.Splits(pair(24, 1), pair(16, 2), test, {})


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., experiment.Outcome]:
    pytest.importorskip("peft", reason="peft is not installed")
    monkeypatch.setenv("XTL_DEVICE", "cpu")
    monkeypatch.setattr(models, "build", lambda arch, classes, weights: tiny(classes))

    def run(folder: str = "runs", poisoned: bool = False, **changes: object) -> experiment.Outcome:
        return experiment.Loop(plan(**changes), parts(poisoned), tmp_path / folder).run(0)

    return run


def test_the_test_labels_choose_nothing(loop) -> None:
    clean, poisoned = loop("clean"), loop("poisoned", poisoned=True)
    assert clean.findings == poisoned.findings
    assert clean.made.keys() == poisoned.made.keys() == {"both"}
    assert torch.equal(clean.made["both"].images, poisoned.made["both"].images)
    assert list(clean.models) == ["baseline", "both", "lora", "more_steps"]
    for arm, model in clean.models.items():
        other = poisoned.models[arm]
        assert arms.hash_of(model.state_dict()) == arms.hash_of(other.state_dict())
        assert torch.equal(clean.test[arm].logits, poisoned.test[arm].logits)
        assert not torch.equal(clean.test[arm].labels, poisoned.test[arm].labels)


@pytest.mark.parametrize("frozen", [0, 1])
def test_the_loop_goes_on_from_the_last_finished_arm(loop, monkeypatch, capsys, frozen) -> None:
    recipe = late.LateRecipe(2, 3e-3, batch=8) if frozen else RECIPE
    how = dict(frozen=frozen, first=recipe, again=recipe)
    whole = loop("whole", **how)
    assert "seed 0: 4 arms after" in capsys.readouterr().out
    retrain = experiment.retrain

    def interrupted(arm: str, *rest: object) -> torch.nn.Module:
        if arm == "more_steps":
            raise KeyboardInterrupt
        return retrain(arm, *rest)

    monkeypatch.setattr(experiment, "retrain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop("cut", **how)
    monkeypatch.setattr(experiment, "retrain", retrain)
    fits: list[int] = []
    fit = arms.fit_late
    monkeypatch.setattr(arms, "fit_late", lambda *inputs: fits.append(1) or fit(*inputs))
    resumed = loop("cut", **how)
    assert len(fits) == (1 if frozen else 0)
    for arm, model in whole.models.items():
        assert arms.hash_of(model.state_dict()) == arms.hash_of(resumed.models[arm].state_dict())
    again = loop("cut", **how)
    assert len(fits) == (1 if frozen else 0)
    assert all(torch.equal(again.test[a].logits, resumed.test[a].logits) for a in again.test)


def test_kept_predictions_of_other_weights_are_not_taken(loop, tmp_path) -> None:
    first = loop("a")
    changed = loop("a", again=replace(RECIPE, lr=1e-2))
    assert torch.equal(first.test["baseline"].logits, changed.test["baseline"].logits)
    assert not torch.equal(first.test["both"].logits, changed.test["both"].logits)
    (tmp_path / "a" / "both-0" / "test.safetensors").write_bytes(b"broken")
    again = loop("a", again=replace(RECIPE, lr=1e-2))
    assert torch.equal(again.test["both"].logits, changed.test["both"].logits)


# ---------------------------------------------------------------- numbers


def said(correct: np.ndarray, labels: torch.Tensor) -> Predictions:
    predicted = torch.where(torch.from_numpy(correct), labels, 1 - labels)
    return Predictions(torch.nn.functional.one_hot(predicted, 2).float(), labels, ("cat", "dog"))


def seeds(rates: dict[str, float], n: int = 600, s: int = 3) -> list[dict[str, Predictions]]:
    rng, labels = np.random.default_rng(0), torch.arange(n) % 2
    return [
        {arm: said(rng.random(n) < rate, labels) for arm, rate in rates.items()} for _ in range(s)
    ]


def test_scores_are_those_of_scikit_learn() -> None:
    runs = seeds({"baseline": 0.7, "both": 0.8, "more_steps": 0.7})
    found = comparison.Comparison(runs, draws=50)
    for arm in ("baseline", "both"):
        for name in comparison.METRICS:
            expected = np.mean([metrics(r[arm])[name] for r in runs])
            assert found.interval(arm, name)[0] == pytest.approx(expected)
    fixed, new = found.changes("both")
    gain = [(r["both"].correct.sum() - r["baseline"].correct.sum()).item() for r in runs]
    assert (fixed - new).tolist() == gain


@pytest.mark.parametrize(
    ("both", "control", "words"),
    [
        (0.9, 0.7, ["zero is excluded", "the loop itself helped"]),
        (0.9, 0.9, ["is excluded here"]),
        (0.7, 0.7, ["zero is not", "cannot tell"]),
        (0.5, 0.7, ["zero is excluded", "is excluded here"]),
    ],
)
def test_the_conclusion_follows_the_intervals(both: float, control: float, words: list) -> None:
    rates = {"baseline": 0.7, "both": both, "more_steps": control}
    runs = comparison.Comparison(seeds(rates, n=3000, s=4), draws=400)
    text = comparison.conclusion(runs)
    assert all(word in text for word in words), text
    numbers = runs.numbers()
    assert {"more_steps.recall.high", "both.minus_baseline.mean", "both.fixed"} <= set(numbers)
    assert {"both.f1.low", "both.minus_more_steps.low"} <= set(numbers)
    assert "both.minus_best_control.low" in numbers
    low, mean, high = (numbers[f"both.accuracy.{end}"] for end in ("low", "mean", "high"))
    assert low <= mean <= high


def test_verdicts_on_the_published_gain() -> None:
    def of(both: float, n: int) -> str:
        runs = seeds({"baseline": 0.8, "both": both}, n=n, s=6)
        return comparison.published_verdict(comparison.Comparison(runs, draws=300), "both")

    assert of(0.85, 3000) == "same"
    assert of(0.75, 3000) == "excluded"
    assert of(0.81, 60) == "inconclusive"


def test_equal_arms_differ_by_exactly_nothing() -> None:
    runs = seeds({"baseline": 0.7})
    for run in runs:
        run["both"] = run["baseline"]
    assert comparison.Comparison(runs, draws=100).difference("both") == (0.0, 0.0, 0.0)


def test_inside_is_a_share_and_the_middle_covers_half() -> None:
    maps = torch.zeros(2, 32, 32)
    maps[0, 16, 16], maps[1, 0, 0] = -3.0, 2.0
    assert moves.inside(maps, moves.middle(32, 32)).tolist() == [1.0, 0.0]
    middle = moves.middle(64, 64)
    assert middle.float().mean() == pytest.approx(0.5, abs=0.02)
    assert moves.inside(torch.ones(1, 64, 64), middle).item() == pytest.approx(0.5, abs=0.02)


# ---------------------------------------------------------------- looking, checking, moving


def test_the_blind_arms_have_the_same_mistakes_and_other_maps() -> None:
    found = evidence()
    views = experiment.seen_by(found, 0)
    for asked in ("other_maps", "uniform_maps"):
        assert torch.equal(views[asked].failed, found.failed)
        assert torch.equal(views[asked].images, found.images)
    others = views["other_maps"].maps
    assert not any(torch.equal(a, b) for a, b in zip(others, found.maps, strict=True))
    sums, own = (maps.sum((1, 2)).sort().values for maps in (others, found.maps))
    assert torch.equal(sums, own)
    assert views["uniform_maps"].maps.std() == 0
    flat = views["uniform_maps"]
    made = generators.generate(sources(), flat, RuleAnalyst().analyse(flat), 8)
    assert made.images.float().mean() > 20  # a map without a hole leaves a background to match


def test_a_true_finding_holds_on_new_images_and_a_made_up_one_fails() -> None:
    def planted(seed: int) -> Evidence:
        some = replace(evidence(200, []), images=pair(200, seed).images)
        dark = torch.arange(1, 100, 2)
        images = some.images.clone()
        images[dark] //= 4
        predicted = some.labels.clone()
        predicted[dark] = 0
        return replace(some, images=images, predicted=predicted, failed=dark)

    true = RuleAnalyst(clusters=1).analyse(planted(0))
    assert true[0].rule.trait in ("brightness", "contrast")
    (result,) = checks.check_findings(true, planted(1))
    assert result.holds and result.verdict == "holds" and result.such == (50, 50)
    wrong = [replace(true[0], rule=findings.Rule("warmth", 0.0, True)), replace(true[0], rule=None)]
    results = checks.check_findings(wrong, planted(1))
    assert [r.verdict.split(":")[0] for r in results] == ["fails", "not testable here"]
    # ten points are needed, however sure they are
    few = checks.FindingCheck(true[0], (550, 1000), (490, 1000), p=0.001)
    assert few.difference == pytest.approx(0.06) and not few.holds


def test_nonsense_has_as_many_mistakes_but_others() -> None:
    found = evidence(80, list(range(0, 40, 2)))
    other = checks.nonsense(found)
    assert len(other.failed) == 20 and set(other.failed.tolist()) != set(found.failed.tolist())
    wrong = torch.nonzero(other.predicted != other.labels).flatten()
    assert sorted(wrong.tolist()) == sorted(other.failed.tolist())


def test_maps_move_only_if_they_move_more_than_others() -> None:
    rng = np.random.default_rng(0)

    def kind(rise: float, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
        before = rng.uniform(0.2, 0.6, n)
        return before, before + rng.normal(rise, 0.05, n)

    def verdict(fixed: float, broken: float, right: float, n: int = 200) -> str:
        rises = {moves.FIXED: fixed, moves.BROKEN: broken, moves.RIGHT: right}
        return moves.judge({name: kind(rise, n) for name, rise in rises.items()}).verdict

    assert verdict(0.10, 0.0, 0.0) == "moved onto it"
    assert verdict(0.10, 0.10, 0.10) == "did not move onto it more than the maps of other images"
    assert verdict(0.0, 0.0, 0.0) == "did not move onto it"
    assert verdict(0.10, 0.0, 0.0, n=4).startswith("inconclusive: 4 fixed, 4 newly wrong")
    assert moves.judge({moves.RIGHT: kind(0.0)}).verdict.startswith("inconclusive: 0 fixed")


# ---------------------------------------------------------------- late blocks on kept features


def test_late_training_equals_the_whole_model_and_leaves_the_early_blocks(monkeypatch) -> None:
    monkeypatch.setattr(late, "quick_arithmetic", nullcontext)  # float32 on every processor
    model, some = tiny(), pair(24)
    early = late.Early(model, 1)
    features = early.features(some.images)
    logits = models.logits_of(model, some.images)
    assert torch.allclose(early.logits(model, features), logits, atol=1e-5)
    seen: list[int] = []
    hook = model.patch_embed.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    more = torch.cat([some.images.flip(0), pair(3, 9).images])
    assert torch.equal(early.features(more, keep=False)[:24], features.flip(0)) and seen == [3]
    early.features(more)
    early.features(more)
    assert seen == [3, 3]  # remembered now
    hook.remove()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    history = late.fit_late(model, early, some, pair(12, 2), late.LateRecipe(6, 5e-3, batch=8))
    changed = [n for n, t in model.state_dict().items() if not torch.equal(t, before[n])]
    assert any(name.startswith("blocks.1") for name in changed)
    assert not any(name.startswith(("blocks.0", "patch_embed", "pos_embed")) for name in changed)
    val = pair(12, 2)
    right = models.logits_of(model, val.images).argmax(1) == val.labels
    assert max(history.val_accuracy) == pytest.approx(right.float().mean().item())
    with pytest.raises(ValueError, match="has no 2 blocks to freeze"):
        late.Early(model, 2)


# ---------------------------------------------------------------- pictures


def test_the_sheet_shows_a_mistake_with_what_was_made_for_it() -> None:
    images, heatmap = pair(3).images, torch.rand(32, 32)
    rows = {"made for it": images[:3], "random control": images[:2]}
    figure = feedback.plot_contact_sheet(images[0], heatmap, rows, "a dog")
    assert len(figure.axes) == 8 and sum(len(ax.images) for ax in figure.axes) == 2 + 3 + 2
    titles = [" ".join(ax.get_title().split()) for ax in figure.axes if ax.get_title()]
    assert titles == ["a dog", "made for it", "map", "random control"]
    with pytest.raises(ValueError, match="resize it"):
        feedback.plot_contact_sheet(images[0], heatmap[:8], rows, "a dog")


def test_the_chart_of_arms_shows_the_numbers_it_is_given() -> None:
    levels = {"base": (0.7, 0.6, 0.8), "up": (0.8, 0.7, 0.9), "same": (0.71, 0.6, 0.8)}
    gains = {"up": (0.1, 0.05, 0.15), "same": (0.01, -0.1, 0.1)}
    changes, paper = {"up": ([4, 6], [1, 1])}, {"base": 0.95, "up": 0.97}
    figure = feedback.plot_arms(levels, gains, changes, ["same"], paper, "t")
    accuracy, gain, mistakes = figure.axes
    shown = [line.get_xdata()[0] for line in accuracy.lines if line.get_marker() == "o"]
    assert shown == [0.7, 0.8, 0.71]
    dots = [line for line in gain.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([10, 1])
    assert dots[0].get_color() == "C2" and dots[1].get_color() == "C0"
    (diamonds,) = [line for line in gain.lines if line.get_marker() == "D"]
    assert list(diamonds.get_xdata()) == pytest.approx([2.0])
    # older matplotlib draws a polygon behind
    bars = [p for p in mistakes.patches if isinstance(p, Rectangle)]
    assert sorted(bar.get_width() for bar in bars if bar.get_height() < 0.9) == [-1, 5]


def test_before_and_after_are_drawn_as_given() -> None:
    before, after = np.array([0.1, 0.3]), np.array([0.4, 0.2])
    figure = feedback.plot_before_after({"p": {"fixed": (before, after)}}, "share", "t")
    cross, key = [line for line in figure.axes[0].lines if line.get_marker() == "X"]
    assert len(key.get_xdata()) == 0 and key.get_label() == "mean"  # only for the legend
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (pytest.approx(0.2), pytest.approx(0.3))
