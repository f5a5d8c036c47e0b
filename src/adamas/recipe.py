"""Recipes: typed values from a file and back; a file may hold many rows; all mistakes at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import yaml
from annotated_types import Ge, Gt, Lt
from pydantic import TypeAdapter, ValidationError

from adamas.data import AnyDataset, Split
from adamas.documents import combinations, load, name_stages, put, split
from adamas.errors import AdamasError, nearest
from adamas.evaluate import Evaluate
from adamas.fit import Fit
from adamas.models import AnyModel
from adamas.registry import Count, Number, mistakes, plain, settings
from adamas.roles import AnyAttack, AnyCompressor, AnyThreat


@settings
class Normalise:
    """The model's first layer, (x - mean) / std per channel; None means the statistics of the training images."""

    mean: tuple[Number, ...] | None = None
    std: tuple[Annotated[Number, Gt(0)], ...] | None = None


@settings
class Stage:
    """Compress, then fit; either may be absent, not both."""

    compress: AnyCompressor | None = None
    fit: Fit | None = None

    def __post_init__(self) -> None:
        if self.compress is None and self.fit is None:
            raise ValueError("expected a stage with 'compress', 'fit' or both, got neither")
        if self.compress is not None and self.compress.needs_fit and self.fit is None:
            raise ValueError(f"{self.compress.name}: expected a fit in the same stage, in which it learns, got none")


@settings
class Deploy:
    """What is measured on the exported files: latency at these batch sizes on so many threads."""

    batch_sizes: tuple[Count, ...] = (1, 64)
    threads: Count = 1


@settings
class FromStage:
    """Images crafted by `attack` on the model as stage number `stage` (0 is the first) left it; -1: as it came."""

    stage: Annotated[int, Ge(-1)] = 0
    attack: AnyAttack = "pgd"  # type: ignore[assignment]


@settings
class Recipe:
    """One run from data to report; every default is written out in the card that ships with the result."""

    title: str = ""
    data: AnyDataset | None = None
    split: Split = Split()
    normalise: Normalise = Normalise()
    model: AnyModel | None = None
    threat: AnyThreat = "linf"  # type: ignore[assignment]
    stages: tuple[Stage, ...] = ()
    evaluate: Evaluate = Evaluate()
    transfer: tuple[FromStage, ...] = ()
    deploy: Deploy = Deploy()
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0

    def __post_init__(self) -> None:
        for source in self.transfer:
            if source.stage >= len(self.stages):
                raise ValueError(f"transfer: expected a stage from -1 to {len(self.stages) - 1}, got {source.stage}")


def read(path: Path | str, overrides: tuple[str, ...] | list[str] = (), only: str = "*") -> dict[str, Recipe]:
    """The rows of a recipe file by name (one row, named after the file, unless it sweeps) that match the pattern `only`.

    `overrides` are "path.to.key=value" with YAML values; one for a swept key, or above it, replaces that sweep.
    Errors: every mistake of every such row in one message, each with its path; no row that matches.
    """
    path = Path(path)
    raw = load(path)
    sweep = raw.pop("sweep", None) or {}
    raw.pop("claims", None)
    changes = [split(override) for override in overrides]
    rows: dict[str, Recipe] = {}
    errors: dict[str, None] = {}
    found = {name or path.stem: values for name, values in combinations(sweep, tuple(key for key, _ in changes))}
    chosen = [name for name in found if fnmatch(name, only)]
    if not chosen:
        raise AdamasError(f"no row matches {only!r}{nearest(only, found)}")
    for name in chosen:
        row = copy.deepcopy(raw)
        for key, value in [*found[name], *changes]:
            with _noted(errors):
                put(row, key, copy.deepcopy(value))
        errors.update(dict.fromkeys(name_stages(row)))
        with _noted(errors):
            rows[name] = TypeAdapter(Recipe).validate_python(row)
    if errors:
        raise AdamasError("\n".join(f"{path.name}: {line}" for line in errors))
    return rows


def claims(path: Path | str) -> Any:
    """What a recipe file claims of its rows, as written there."""
    return load(Path(path)).get("claims") or []


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True)


def schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors."""
    document = TypeAdapter(Recipe).json_schema()
    fragment = {"type": "object", "additionalProperties": {"$ref": "#/$defs/Stage"}}
    document["properties"] |= {
        "extends": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "description": "Recipe files, relative to this one, that this one changes; later ones win.",
        },
        "define": fragment | {"description": "Named stages; `stages` may list them by name."},
        "claims": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Comparisons that measured rows must meet.",
        },
        "sweep": {"type": "object", "description": "Keys to lists (or named values) of which every combination is one row."},
    }
    document["properties"]["stages"]["items"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Stage"}]}
    return document


@contextmanager
def _noted(errors: dict[str, None]) -> Iterator[None]:
    """Collect the mistakes of a block instead of raising them."""
    try:
        yield
    except ValidationError as error:
        errors.update(dict.fromkeys(mistakes(error)))
    except AdamasError as error:
        errors[str(error)] = None
