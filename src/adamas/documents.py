"""Recipe files as plain documents: YAML, `extends`, stages by name, sweeps, and settings by dotted path."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from adamas.errors import AdamasError, nearest

EVERY = "stages.*."
"""What a key begins with that speaks of every stage."""


def load(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
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
        base = merged(base, load(path.parent / parent, (*seen, path.resolve())))
    return merged(base, document)


def merged(base: Any, change: Any) -> Any:
    """`change` over `base`: mappings merge key by key, unless their `name` differs; everything else is replaced."""
    if not (isinstance(base, dict) and isinstance(change, dict)) or base.get("name") != change.get("name", base.get("name")):
        return change
    return base | {key: merged(base.get(key), value) for key, value in change.items()}


def combinations(sweep: Any, fixed: tuple[str, ...]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Every combination of the swept values as (row name, [(key, value)]), without keys at or below a fixed one."""
    if not isinstance(sweep, dict) or not all(isinstance(values, list | dict) and values for values in sweep.values()):
        raise AdamasError(f"sweep: expected keys with lists or named values, got {sweep!r}")
    axes = []
    for key, values in ((str(key), values) for key, values in sweep.items()):
        named = values.items() if isinstance(values, dict) else [(f"{key.split('.')[-1]}={value}", value) for value in values]
        if not any(f"{key}.".startswith(f"{other}.") for other in fixed):
            axes.append([(name, key, value) for name, value in named])
    for combination in itertools.product(*axes):
        yield " ".join(str(name) for name, _, _ in combination), [(key, value) for _, key, value in combination]


def changed(document: dict[str, Any], overrides: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """A plain document with "path.to.key=value" settings applied."""
    document = copy.deepcopy(document)
    for override in overrides:
        put(document, *split(override))
    return document


def split(override: str) -> tuple[str, Any]:
    """Key and value of "path.to.key=value", the value in YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise AdamasError(f"expected an override like stages.1.compress.keep=0.2, got {override!r}")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError:
        raise AdamasError(f"{key}: expected a YAML value, got {text!r}") from None


def put(document: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted path; list items are numbers, and a stage given by name is first replaced by a copy of its definition.

    `stages.*.compress.keep` sets it in every stage that has a `compress`.
    """
    if key.startswith(EVERY):
        for i in _stages_with(document, key):
            put(document, key.replace("*", str(i), 1), value)
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


def name_stages(document: dict[str, Any]) -> list[str]:
    """Replace, in place, stages given by name by their definitions, and drop the definitions; the names that have none."""
    stages, mistakes = document.get("stages"), []
    stages = stages if isinstance(stages, list) else []
    for i, stage in enumerate(stages):
        if isinstance(stage, str):
            try:
                stages[i] = _definition(document, stage, f"stages.{i}")
            except AdamasError as error:
                stages[i] = {"fit": {}}  # stands in for an unknown name, which is then reported once
                mistakes.append(str(error))
    document.pop("define", None)
    return mistakes


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
