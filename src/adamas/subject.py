"""What a command is asked to attack: an artifact's directory or an ONNX file, with its test data and its threat."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from adamas.artifact import Artifact
from adamas.data import AnyDataset, Data, Split, load
from adamas.deploy.files import exported
from adamas.deploy.twin import twin
from adamas.errors import AdamasError
from adamas.registry import parse, plain
from adamas.roles import AnyThreat, Threat
from adamas.threat import Linf


@dataclass(frozen=True)
class Subject:
    """A network with gradients, the file that ships it (or none), test images and the threat it is attacked under.

    An ONNX file is its own differentiable twin.
    """

    name: str
    model: nn.Module
    file: Path | None
    data: Data
    threat: Threat
    seed: int
    artifact: Artifact | None


def subject(
    path: Path,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    n: int | None = None,
    norm: str | None = None,
    eps: str | None = None,
    seed: int | None = None,
) -> Subject:
    """Open an artifact or an ONNX file; what is not given is the artifact's own (for a file Linf 8/255 and seed 0).

    `dataset` is a registered name or an .npz file. Errors: neither an artifact nor an ONNX file; no data named where none is
    known; an eps that is no distance.
    """
    if path.suffix == ".onnx":
        threat = _threat(Linf(), norm, eps)
        if dataset is None:
            raise AdamasError(f"{path}: expected --data, the test images to attack the file on; an ONNX file names none")
        network = twin(path)
        data = load(_dataset(dataset), Split(test=n, validation=0), data_dir=data_dir)
        return Subject(path.name, network, path, data, threat, seed or 0, None)
    artifact = Artifact.load(path)
    recipe, files = artifact.recipe, exported(path)
    threat = _threat(recipe.threat, norm, eps)
    chosen = recipe.data if dataset is None else _dataset(dataset)
    if chosen is None:
        raise AdamasError(f"{path}: its data came from the user's own loaders; name some with --data, or use adamas.evaluate")
    network = artifact.model()
    data = load(chosen, replace(recipe.split, test=n or recipe.split.test), data_dir=data_dir, seed=recipe.seed)
    shipped = files.shipped if files.names else None
    return Subject(str(path), network, shipped, data, threat, recipe.seed if seed is None else seed, artifact)


def share(text: str) -> tuple[int, int]:
    """The part of the work in "2/4". Errors: anything else."""
    if not re.fullmatch(r"[1-9]\d{0,5}/[1-9]\d{0,5}", text):
        raise AdamasError(f"part: expected a share of the images such as 2/4, got {text!r}")
    k, m = text.split("/")
    return int(k), int(m)


def _dataset(name: str) -> AnyDataset:
    raw = {"name": "npz", "path": name} if name.endswith(".npz") else {"name": name}
    return parse(AnyDataset, raw)  # type: ignore[arg-type]


def _threat(default: Threat, norm: str | None, eps: str | None) -> Threat:
    """The default with another norm or eps; another norm brings its own default eps."""
    raw = plain(default) if norm in (None, default.name) else {"name": norm}
    return parse(AnyThreat, raw | ({} if eps is None else {"eps": eps}))  # type: ignore[arg-type]
