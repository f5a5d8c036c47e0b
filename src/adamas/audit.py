"""What a shipped ONNX file withstands: attacks through its differentiable twin, every candidate scored by the runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from torch import nn

from adamas.attacks.square import Square
from adamas.attacks.transfer import Transfer
from adamas.data import Data
from adamas.deploy.parity import Parity, parity
from adamas.deploy.runtime import OnnxModel
from adamas.deploy.twin import twin
from adamas.evaluate import Evaluate, Evaluation, evaluate
from adamas.registry import Count, settings
from adamas.roles import AnyAttack, Threat
from adamas.verdict import Verdict

ALIKE = 0.995
"""Share of the images on which the twin and the runtime must predict the same class, lest the white box sees another model."""


@settings
class Audit:
    """How a file is audited: `evaluate` through its twin, `transfer` from every other model given, `queries` to the file."""

    evaluate: Evaluate = Evaluate(attacks=("apgd", "apgd_t"))  # type: ignore[arg-type]
    transfer: AnyAttack = "pgd"  # type: ignore[assignment]
    queries: Count = 5000


@dataclass(frozen=True)
class Audited:
    """One file under one engine: what was measured there, and how far the white box saw what the engine computes.

    `file`: the outcome on the engine, its worst case being the headline; `twin`: the outcome on the twin, with flags.
    """

    path: str
    sha256: str
    bytes: int
    engine: str
    file: Verdict
    twin: Evaluation
    agreement: Parity
    flags: list[str] = field(default_factory=list)


def audit(
    path: Path | str,
    data: Data,
    threat: Threat,
    settings: Audit = Audit(),  # noqa: B008  (frozen)
    *,
    sources: Mapping[str, nn.Module] | None = None,
    seed: int = 0,
    state: Path | str | None = None,
    part: tuple[int, int] = (1, 1),
) -> Audited:
    """Attack an ONNX file, fp32 or with QuantizeLinear / DequantizeLinear, on the test images.

    White-box attacks go through its differentiable twin, transferred ones come from `sources` (such as its fp32 or unpruned
    parents), a black-box attack queries ONNX Runtime alone; whatever any of them proposes is scored by ONNX Runtime, and an
    image is attacked until it falls there. `state` and `part` as in `evaluate`.
    Errors: a file that cannot be run or whose operators have no twin.
    """
    path = Path(path)
    runtime, white_box = OnnxModel(path), twin(path).eval()
    also = [Transfer(source, name, settings.transfer) for name, source in (sources or {}).items()]
    also.append(Transfer(runtime, path.name, Square(queries=settings.queries)))
    alike = parity(white_box, runtime, data.test[:1000])
    found = evaluate(
        white_box, data, settings.evaluate, threat, seed=seed, judges={path.name: runtime}, also=also,
        title=f"audit {path.name}", state=state, part=part,
    )  # fmt: skip
    content = path.read_bytes()
    return Audited(
        path=str(path), sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), engine=engine(),
        file=found.judged[path.name], twin=found, agreement=alike, flags=_flags(alike, found),
    )  # fmt: skip


def engine() -> str:
    """The runtime that files are scored on."""
    return f"ONNX Runtime {version('onnxruntime')}, CPU"


def _flags(alike: Parity, found: Evaluation) -> list[str]:
    if alike.agreement >= ALIKE:
        return found.flags
    other = round((1 - alike.agreement) * alike.n)
    return [
        f"the twin predicts {other} of {alike.n} images unlike the file: white-box attacks saw another model than is shipped",
        *found.flags,
    ]
