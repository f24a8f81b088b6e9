"""The bench: every case runs at tiny size and keeps the contract of cpu.json; ratios are not judged."""

import json
import threading

import pytest
import torch

from utils.bench import costs, cpu, measure

NAMES = [
    *"input evaluation gradcam_single gradcam_batch gradcam_forward ig_memory_steps".split(),
    *"ig_memory_images ig_adaptive lrp_b1 lrp_b8 attention data_share".split(),
    *costs.CASES,
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    threads = torch.get_num_threads()
    entries = cpu.run(tiny=True, file=file)
    assert torch.get_num_threads() == threads
    assert json.loads(file.read_text()) == entries
    return file, {entry["name"]: entry for entry in entries}


@pytest.mark.slow
def test_every_case_is_there_with_its_fields(written):
    _, entries = written
    assert list(entries) == NAMES
    for entry in entries.values():
        for key in ("ours", "peer", "ratio", "target"):
            assert entry[key] > 0
        low, high = entry["spread"]
        assert low <= entry["ratio"] <= high
        assert entry["what"] and entry["unit"] in ("seconds", "MB")
        assert entry["device"] == "CPU, 1 thread"
        ratio, target = entry["ratio"], entry["target"]
        met = ratio >= target if entry["bound"] == "at least" else ratio <= target
        met &= all(value <= top for value, top in entry["also"].values())
        assert entry["holds"] == met


def test_what_does_not_depend_on_speed_holds(written):
    _, entries = written
    assert entries["input"]["also"]["levels"][0] == 0
    assert entries["evaluation"]["also"]["forwards_per_image"][0] == 1
    assert entries["gradcam_single"]["also"]["difference"][0] < 1e-4
    assert entries["ig_memory_steps"]["also"]["difference"][0] < 1e-5
    for name in costs.CASES:  # no more passes than the method needs
        made, most = entries[name]["also"]["passes"]
        assert 1 <= made <= most
    assert (
        entries["lrp_b1"]["also"]["flops"][0] < 3.5
    )  # products a weight: 1 forward, 1 gradient, 3 relevance, against 2


def test_one_case_again_keeps_the_others(written):
    file, before = written
    after = {entry["name"]: entry for entry in cpu.run(only="input", tiny=True, file=file)}
    assert list(after) == NAMES and after["lrp_b1"] == before["lrp_b1"]
    with pytest.raises(ValueError, match="nothing called 'swiftness'"):
        cpu.run(only="swiftness", tiny=True, file=file)


def test_flops_of_a_product_are_counted():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert measure.flops(lambda: a @ b) == 2 * 3 * 4 * 5


def test_flops_of_a_gradient_with_regard_to_the_input_are_counted():
    layer, x = torch.nn.Linear(3, 5), torch.ones(2, 3, requires_grad=True)
    work = measure.flops(lambda: torch.autograd.grad(layer(x).sum(), x))
    assert work == 2 * (2 * 2 * 3 * 5)  # forward, and the gradient of x


def test_memory_is_what_a_call_holds_at_most(monkeypatch):
    """Also in a heap with room for all of it, as the tests before this one may leave it."""
    looked, resident = threading.Event(), measure._resident

    def look() -> int:
        looked.set()
        return resident()

    def hold() -> None:
        kept = torch.ones(20_000_000)  # 80 MB
        for _ in range(2):  # the first look may have begun before
            looked.clear()
            assert looked.wait(60)
        del kept

    monkeypatch.setattr(measure, "_resident", look)
    torch.ones(7_000_000)  # once 28 MB are freed, glibc takes less than that from its heap
    blocks = [torch.ones(2_500_000) for _ in range(13)]
    del blocks[:-1]  # 120 MB are free and stay with the process
    held, seconds = measure.memory(hold, torch.device("cpu"))
    assert 60e6 < held < 150e6 and seconds > 0
