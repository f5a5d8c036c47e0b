"""Latency: fair turns, bounded time, statistics that fit together."""

from __future__ import annotations

import time

import pytest
from torch import nn

from adamas.deploy.export import export_onnx
from adamas.deploy.latency import FEWEST, WARM_UP, _take_turns, latency
from adamas.errors import AdamasError


@pytest.fixture
def files(tmp_path):
    small = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 14, 10))
    large = nn.Sequential(nn.Conv2d(1, 256, 3), nn.Conv2d(256, 64, 3), nn.Flatten(), nn.Linear(64 * 12 * 12, 10))
    return {
        name: export_onnx(net, tmp_path / f"{name}.onnx", (1, 16, 16)) for name, net in (("small", small), ("large", large))
    }


def test_the_larger_network_is_slower_and_the_larger_batch_too(files):
    times = latency(files, (1, 16, 16), batch_sizes=(1, 16), repeats=15)
    assert times["large"][1].p50 > times["small"][1].p50
    assert times["large"][16].p50 > times["large"][1].p50
    for by_batch in times.values():
        assert all(0 < t.min <= t.p50 <= t.p95 and t.runs == 15 for t in by_batch.values())


def test_files_take_turns_after_a_warm_up():
    order: list[str] = []
    taken = _take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=4, seconds=9)
    assert order == ["a", "b"] * (WARM_UP + 4)
    assert [len(times) for times in taken.values()] == [4, 4]


def test_rounds_stop_when_the_time_is_used_up_but_three_are_run():
    taken = _take_turns({"slow": lambda: time.sleep(0.01)}, repeats=1000, seconds=0.0)
    assert len(taken["slow"]) == FEWEST and min(taken["slow"]) >= 0.01


def test_a_file_for_other_images_is_named(files):
    with pytest.raises(AdamasError, match=r"small: expected a file that takes images \(1, 3, 16, 16\), got"):
        latency(files, (3, 16, 16))
