"""Every recipe file is valid, and every distinct chain of stages builds and runs one tiny epoch on tiny data of its kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adamas.claims import check_claims
from adamas.data import Data, Images
from adamas.data.images import Split, divide
from adamas.deploy.files import export_files
from adamas.models import normalized
from adamas.pipeline import run_stage
from adamas.recipe import Recipe, Stage, claims, read
from adamas.registry import plain

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
SHAPES = {
    "digits": (1, 8, 8),
    "svhn": (3, 32, 32),
    "image_folder": (3, 64, 64),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
}

SHALLOW = {"enresnet": {"depth": 8}, "resnet20": {"depth": 8}, "wide_resnet": {"depth": 10}}
"""The least depth of networks that come in many."""


def tiny(name: str) -> Data:
    generator = torch.Generator().manual_seed(0)
    images = Images(torch.randint(0, 256, (24, *SHAPES[name]), generator=generator, dtype=torch.uint8), torch.arange(24) % 10)
    return divide(name, images, images[:4], tuple("0123456789"), Split(validation=0), 0)


def shrunk(stage: Stage) -> Stage:
    """The same stage for one epoch, with one step in every attack; learned rates start within their budget."""
    rates: Any = getattr(stage.compress, "rates", None)
    if hasattr(rates, "start_keep"):
        learned: Any = stage.compress
        stage = replace(stage, compress=replace(learned, rates=replace(rates, start_keep=learned.keep)))
    if stage.fit is None:
        return stage
    objective = stage.fit.objective
    if hasattr(objective, "attack"):
        objective = replace(objective, attack=replace(objective.attack, steps=1))
    return replace(stage, fit=replace(stage.fit, objective=objective, epochs=1, batch_size=12, lr=1e-3))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_valid_and_titled(path: Path) -> None:
    check_claims(claims(path), read(path))
    for name, row in read(path).items():
        assert row.title, name
        assert row.stages, name
        assert row.data is not None
        assert row.data.name in SHAPES, "add the data set's image shape to this test"


def chains() -> list[Recipe]:
    """One recipe per distinct pair of data set and chain of methods, whatever their settings."""
    found = {}
    for path in RECIPES:
        for row in read(path).values():
            methods = [(s.compress and s.compress.name, s.fit and s.fit.objective.name) for s in row.stages]
            parts = [
                [plain(s.compress).get(key) for key in ("weight_bits", "scores", "rates")] for s in row.stages if s.compress
            ]
            found.setdefault((row.data.name, str(methods), str(parts)), row)  # type: ignore[union-attr]
    return list(found.values())


@pytest.mark.parametrize(
    "recipe", chains(), ids=lambda r: f"{r.data.name} {[s.compress and s.compress.name for s in r.stages]}"
)
def test_chain_runs_one_tiny_epoch(recipe: Recipe, tmp_path: Path) -> None:
    data = tiny(recipe.data.name)  # type: ignore[union-attr]
    torch.manual_seed(0)
    architecture = replace(recipe.model, width=8, **SHALLOW.get(recipe.model.name, {}))  # type: ignore[type-var, union-attr]
    model = normalized(architecture.build(data.image_shape, 10), [0.5], [0.5])
    for stage in recipe.stages:
        run_stage(model, shrunk(stage), data, recipe.threat)
    files = export_files(model, tmp_path, data.image_shape)
    quantized = any(stage.compress is not None and stage.compress.name in ("ptq", "qat", "lsq") for stage in recipe.stages)
    assert len(files.paths) == (2 if quantized else 1)
