"""Recipes: YAML to typed values and back; `extends`, `define` and `sweep` expand into plain recipes; all mistakes at once."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import yaml
from annotated_types import Ge, Gt, Lt
from pydantic import TypeAdapter, ValidationError

from adamas.data import AnyDataset, Split
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


def read(path: Path | str, overrides: tuple[str, ...] | list[str] = ()) -> dict[str, Recipe]:
    """All rows of a recipe file by name (one row, named after the file, unless it sweeps).

    `overrides` are "path.to.key=value" with YAML values; one for a swept key, or above it, replaces that sweep.
    Errors: every mistake of every row in one message, each with its path.
    """
    path = Path(path)
    raw = _load(path)
    sweep = raw.pop("sweep", None) or {}
    raw.pop("claims", None)
    changes = [_split(override) for override in overrides]
    rows: dict[str, Recipe] = {}
    errors: dict[str, None] = {}
    for name, values in _combinations(sweep, tuple(key for key, _ in changes)):
        row = copy.deepcopy(raw)
        for key, value in [*values, *changes]:
            with _noted(errors):
                _set(row, key, copy.deepcopy(value))
        _name_stages(row, errors)
        with _noted(errors):
            rows[name or path.stem] = TypeAdapter(Recipe).validate_python(row)
    if errors:
        raise AdamasError("\n".join(f"{path.name}: {line}" for line in errors))
    return rows


def claims(path: Path | str) -> Any:
    """What a recipe file claims of its rows, as written there."""
    return _load(Path(path)).get("claims") or []


def changed(document: dict[str, Any], overrides: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """A plain document with "path.to.key=value" settings applied."""
    document = copy.deepcopy(document)
    for override in overrides:
        _set(document, *_split(override))
    return document


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


# ------------------------------------------------------------------------------------------------- YAML documents

EVERY = "stages.*."
"""What a key begins with that speaks of every stage."""


def _load(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The document with everything it extends merged in."""
    if path.resolve() in seen:
        raise AdamasError(f"{path}: extends itself through {' -> '.join(p.name for p in seen)}")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        siblings = [str(p.name) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise AdamasError(f"expected a recipe file, there is no {path}{nearest(path.name, siblings)}") from None
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise AdamasError(f"{path}: expected YAML, got {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise AdamasError(f"{path}: expected keys and values, got {type(document).__name__}")
    extends = document.pop("extends", None) or []
    parents = [extends] if isinstance(extends, str) else extends
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise AdamasError(f"{path}: extends: expected the name of a recipe file or a list of names, got {extends!r}")
    base: dict[str, Any] = {}
    for parent in parents:
        base = merged(base, _load(path.parent / parent, (*seen, path.resolve())))
    return merged(base, document)


def merged(base: Any, change: Any) -> Any:
    """`change` over `base`: mappings merge key by key, unless their `name` differs; everything else is replaced."""
    if not (isinstance(base, dict) and isinstance(change, dict)) or base.get("name") != change.get("name", base.get("name")):
        return change
    return base | {key: merged(base.get(key), value) for key, value in change.items()}


@contextmanager
def _noted(errors: dict[str, None]) -> Iterator[None]:
    """Collect the mistakes of a block instead of raising them."""
    try:
        yield
    except ValidationError as error:
        errors.update(dict.fromkeys(mistakes(error)))
    except AdamasError as error:
        errors[str(error)] = None


def _combinations(sweep: Any, changed: tuple[str, ...]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Every combination of the swept values as (row name, [(key, value)]), without keys at or below a changed one."""
    if not isinstance(sweep, dict) or not all(isinstance(values, list | dict) and values for values in sweep.values()):
        raise AdamasError(f"sweep: expected keys with lists or named values, got {sweep!r}")
    axes = []
    for key, values in ((str(key), values) for key, values in sweep.items()):
        named = values.items() if isinstance(values, dict) else [(f"{key.split('.')[-1]}={value}", value) for value in values]
        if not any(f"{key}.".startswith(f"{other}.") for other in changed):
            axes.append([(name, key, value) for name, value in named])
    for combination in itertools.product(*axes):
        yield " ".join(str(name) for name, _, _ in combination), [(key, value) for _, key, value in combination]


def _split(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise AdamasError(f"expected an override like stages.1.compress.keep=0.2, got {override!r}")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError:
        raise AdamasError(f"{key}: expected a YAML value, got {text!r}") from None


def _set(document: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted path; list items are numbers, and a stage given by name is first replaced by a copy of its definition.

    `stages.*.compress.keep` sets it in every stage that has a `compress`.
    """
    if key.startswith(EVERY):
        for i in _stages_with(document, key):
            _set(document, key.replace("*", str(i), 1), value)
        return
    *parents, last = key.split(".")
    here: Any = document
    for depth, part in enumerate(parents):
        where = ".".join(parents[: depth + 1])
        index = _index(here, part, where)
        if isinstance(here, dict):
            here.setdefault(index, {})
        if isinstance(here[index], str):
            here[index] = (
                _definition(document, here[index], where) if parents[0] == "stages" and depth == 1 else {"name": here[index]}
            )
        here = here[index]
        if not isinstance(here, dict | list):
            raise AdamasError(f"{where}: expected keys below it to set {key!r}, got {here!r}")
    here[_index(here, last, key)] = value


def _stages_with(document: dict[str, Any], key: str) -> list[int]:
    """The stages that have what follows the star in a key."""
    wanted, stages = key.removeprefix(EVERY).split(".")[0], document.get("stages")
    named = [_definition(document, stage, key) if isinstance(stage, str) else stage for stage in stages or ()]
    found = [i for i, stage in enumerate(named) if isinstance(stage, dict) and stage.get(wanted) is not None]
    if not found:
        raise AdamasError(f"{key}: expected a stage with {wanted!r}, got none of {len(named)}")
    return found


def _index(here: Any, part: str, where: str) -> Any:
    if not isinstance(here, list):
        return part
    if not re.fullmatch(r"\d+", part) or int(part) >= len(here):
        raise AdamasError(f"{where}: expected a number from 0 to {len(here) - 1}, got {part!r}")
    return int(part)


def _definition(document: dict[str, Any], name: str, where: str) -> Any:
    known = document.get("define") or {}
    if not isinstance(known, dict):
        raise AdamasError(f"define: expected stages by name, got {known!r}")
    if name not in known:
        raise AdamasError(f"{where}: no stage is defined as {name!r}{nearest(name, known)}")
    return copy.deepcopy(known[name])


def _name_stages(document: dict[str, Any], errors: dict[str, None]) -> None:
    """Replace, in place, stages given by name by their definitions, and drop the definitions."""
    stages = document.get("stages")
    stages = stages if isinstance(stages, list) else []
    for i, stage in enumerate(stages):
        if isinstance(stage, str):
            stages[i] = {"fit": {}}  # stands in for an unknown name, which is then reported once
            with _noted(errors):
                stages[i] = _definition(document, stage, f"stages.{i}")
    document.pop("define", None)
