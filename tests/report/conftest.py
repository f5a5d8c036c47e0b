"""Artifacts as the pipeline writes them, built through its own dataclasses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from adamas.artifact import CARD, EVALUATION, FORMAT, WEIGHTS, Artifact, fingerprint
from adamas.cost import Cost
from adamas.evaluate import Evaluation
from adamas.files import write_json
from adamas.recipe import Recipe
from adamas.registry import parse, plain
from adamas.roles import Family
from adamas.verdict import AttackResult, Rate, Verdict

FP32, INT8 = "model.fp32.onnx", "model.int8.onnx"


@dataclass(frozen=True)
class Spec:
    """What one test wants to be different."""

    name: str = "dense"
    seed: int = 0
    test: int = 1000
    clean: int = 950
    worst: int = 600
    attacks: tuple[tuple[str, int], ...] = (("fgsm", 700), ("pgd(steps=50)", 600))
    exhaustive: bool = False
    shipped_clean: int | None = None
    shipped_worst: int | None = None
    int8: bool = False
    params: int = 550_000
    nonzeros: int = 550_000
    bits: int = 32
    bytes_fp32: int = 2_200_000
    bytes_int8: int = 560_000
    agreement: float = 1.0
    ms_fp32: float = 0.05
    ms_int8: float = 0.07
    timed: bool = True
    batch_sizes: tuple[int, ...] = (1, 64)
    flags: tuple[str, ...] = ()
    eps: str = "0.1"
    keep: float = 1.0
    classes: tuple[str, ...] = tuple("0123456789")
    title: str = ""
    epochs: int = 3
    model: str | None = "cnn8"
    processor: str = "Example CPU @ 2.00GHz"
    data: str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
    noise_off: tuple[int, int] | None = None


def card(spec: Spec, weights: Path) -> dict[str, Any]:
    stages: list[dict[str, Any]] = [{"fit": {"objective": "adversarial", "epochs": spec.epochs, "lr": spec.keep / 10}}]
    stages += [{"compress": "qat", "fit": {"objective": "trades", "epochs": 2}}] if spec.int8 else []
    raw = {
        "title": spec.title,
        "data": "digits",
        "model": spec.model,
        "threat": {"name": "linf", "eps": spec.eps},
        "stages": stages,
        "evaluate": {"attacks": ["fgsm", {"name": "pgd", "steps": 50}], "exhaustive": spec.exhaustive},
        "deploy": {"batch_sizes": spec.batch_sizes},
        "seed": spec.seed,
    }
    history = [{"loss": 2.0 / (i + 1), "validation": 0.5 + 0.1 * i} for i in range(spec.epochs)]
    records = [
        {"stage": f"adversarial, {spec.epochs} epochs", "seconds": 12.5, "epochs": history, "notes": ["conv1  32 => 16"]}
    ]
    records += [{"stage": "qat + trades, 2 epochs", "seconds": 8.25, "epochs": history[:2], "notes": []}] if spec.int8 else []
    return {
        "format": FORMAT,
        "name": spec.name,
        "title": spec.title,
        "recipe": plain(parse(Recipe, raw)),
        "network": spec.model or "MyNet",
        "image_shape": [1, 8, 8],
        "classes": list(spec.classes),
        "data": {"name": "digits", "train": 1257, "validation": 140, "fingerprint": spec.data},
        "stages": records,
        "weights": fingerprint(weights),
        "python": "3.11.9",
        "versions": {"adamas": "0.1.0", "torch": "2.13.0"},
        "processor": spec.processor,
        "cores": 2,
        "threads": 1,
        "accelerator": None,
        "commit": None,
    }


FAMILY: dict[str, Family] = {"square": "black-box"}


def evaluation(spec: Spec) -> dict[str, Any]:
    files = [FP32, INT8] if spec.int8 else [FP32]

    def rate(right: int | None, otherwise: int) -> Rate:
        return Rate.of(otherwise if right is None else right, spec.test)

    shipped = Verdict(rate(spec.shipped_clean, spec.clean), [], rate(spec.shipped_worst, spec.worst))
    standing = [spec.clean, *(spec.clean if spec.exhaustive else left for _, left in spec.attacks)]
    measured = Evaluation(
        threat=f"linf(eps={spec.eps})",
        seed=spec.seed,
        clean=Rate.of(spec.clean, spec.test),
        attacks=[
            AttackResult(name, FAMILY.get(name, "cross-entropy gradient"), tried, tried - left, Rate.of(left, spec.test), 3.25)
            for (name, left), tried in zip(spec.attacks, standing, strict=False)
        ],
        worst_case=Rate.of(spec.worst, spec.test),
        flags=list(spec.flags),
        judged={files[-1]: shipped},
        samples=8 if spec.noise_off else 1,
        noise_off=Verdict(rate(spec.noise_off[0], 0), [], rate(spec.noise_off[1], 0)) if spec.noise_off else None,
    )
    sizes = {WEIGHTS: spec.bytes_fp32 + 500, FP32: spec.bytes_fp32} | ({INT8: spec.bytes_int8} if spec.int8 else {})
    times = {FP32: spec.ms_fp32, INT8: spec.ms_int8}
    latency = {
        name: {
            str(n): {"p50": n * times[name], "p95": 1.5 * n * times[name], "min": 0.9 * n * times[name]}
            for n in spec.batch_sizes
        }
        for name in files
    }
    return {
        "key": "k",
        "test": spec.test,
        **asdict(measured),
        "cost": asdict(
            Cost(
                spec.params,
                spec.nonzeros,
                spec.nonzeros * spec.bits,
                spec.nonzeros * spec.bits // 8 + 99,
                3_400_000,
                spec.nonzeros * spec.bits,
            )
        ),
        "bytes_on_disk": sizes,
        "parity": {
            name: {"n": spec.test, "agreement": spec.agreement if name == files[-1] else 1.0, "largest_logit_difference": 1e-5}
            for name in files
        },
    } | ({"latency": latency} if spec.timed else {})


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Artifact]:
    """make(name="filters", int8=True, ...) writes one artifact and opens it."""
    made = 0

    def write(**changes: Any) -> Artifact:
        nonlocal made
        made += 1
        spec, path = Spec(**changes), tmp_path / "runs" / str(made)
        path.mkdir(parents=True)
        (path / WEIGHTS).write_bytes(b"weights")
        write_json(path / CARD, card(spec, path / WEIGHTS))
        write_json(path / EVALUATION, evaluation(spec))
        return Artifact.load(path)

    return write
