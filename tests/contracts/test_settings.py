"""What every settings class must keep: documented, frozen, validated, and the same after a trip through plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, FrozenInstanceError, fields, is_dataclass
from typing import Annotated, Any

import pytest

from adamas.data import Split
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate
from adamas.fit import Fit
from adamas.recipe import Deploy, Normalise, Recipe, Stage, schema
from adamas.registry import KINDS, Choice, describe, parse, plain, registered
from tests.helpers import accepts, made

METHODS = {f"{kind}-{name}": cls for kind in KINDS for name, cls in registered(kind).items()}
OTHERS = {cls.__name__: cls for cls in (Fit, Evaluate, Split, Normalise, Deploy, Recipe)}
CLASSES = METHODS | OTHERS


@pytest.fixture(params=CLASSES)
def cls(request) -> type:
    return CLASSES[request.param]


def again(value: Any) -> Any:
    """A settings object after plain values, JSON text and back."""
    written = json.loads(json.dumps(plain(value)))
    kind = getattr(type(value), "kind", None)
    return parse(Annotated[Any, Choice(kind)] if kind else type(value), written)  # type: ignore[arg-type]


def test_the_docstring_begins_with_one_sentence(cls):
    sentence = describe(cls)
    assert sentence.endswith(".") and not cls.__doc__.startswith(f"{cls.__name__}(")


def test_settings_are_frozen_keyword_only_dataclasses(cls):
    value = made(cls)
    assert is_dataclass(value)
    for field in fields(cls):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)
    with pytest.raises(AdamasError, match="positional"):
        cls("anything")


def test_plain_values_come_back_equal(cls):
    value = made(cls)
    assert again(value) == value
    assert all(field.name in plain(value) for field in fields(cls))  # every default is written out


def test_fractions_come_back_equal(cls):
    """A third, or 200/3 where that is too little, is written as a fraction and must be read as one."""
    for field in fields(cls):
        value = next((value for value in (1 / 3, 200 / 3) if accepts(cls, field.name, value)), None)
        if value is not None:
            assert again(made(cls, **{field.name: value})) == made(cls, **{field.name: value}), field.name


def test_a_wrong_type_is_refused_by_the_name_of_its_field(cls):
    for field in fields(cls):
        with pytest.raises(AdamasError, match=rf"^{field.name}\b.*: "):
            parse(cls, {**required(cls), field.name: object()})


def test_an_unknown_key_is_refused_with_the_valid_ones(cls):
    with pytest.raises(AdamasError, match=r"^nonsense: unknown key 'nonsense'") as error:
        parse(cls, {**required(cls), "nonsense": 1})
    assert all(field.name in str(error.value) for field in fields(cls))


def test_what_is_missing_is_named(cls):
    for name in required(cls):
        with pytest.raises(AdamasError, match=rf"{name}: '{name}' is required and has no default"):
            parse(cls, {})


def required(cls: type) -> dict[str, Any]:
    """The fields without a default, filled."""
    return {f.name: getattr(made(cls), f.name) for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}


def test_a_stage_needs_one_of_its_two_halves():
    assert again(Stage(fit=Fit())) == Stage(fit=Fit())
    with pytest.raises(AdamasError, match="expected a stage with 'compress', 'fit' or both, got neither"):
        Stage()


@pytest.mark.parametrize("compress", [{"name": "prune", "scores": "learned"}, {"name": "filters", "rates": "learned"}, "admm"])
def test_a_stage_that_learns_what_goes_needs_a_fit(compress):
    name = compress if isinstance(compress, str) else compress["name"]
    with pytest.raises(AdamasError, match=f"^{name}: expected a fit in the same stage, in which it learns, got none$"):
        parse(Stage, {"compress": compress})
    assert parse(Stage, {"compress": compress, "fit": {}}).compress.needs_fit


# --------------------------------------------------------------------------------------------------- JSON schema


def parts(node: Any, path: str = "#") -> Iterator[tuple[str, Any]]:
    """Every object and array of a JSON document with its path."""
    yield path, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from parts(child, f"{path}/{key}")


def test_the_schema_is_json_and_every_reference_in_it_resolves():
    document = json.loads(json.dumps(schema(), allow_nan=False))
    places = dict(parts(document))
    references = [node["$ref"] for node in places.values() if isinstance(node, dict) and isinstance(node.get("$ref"), str)]
    assert references and all(reference in places for reference in references)
    assert document["type"] == "object" and document["additionalProperties"] is False
    assert {"extends", "define", "sweep", "claims", *(field.name for field in fields(Recipe))} == set(document["properties"])


def test_the_schema_knows_every_method_and_every_key_of_it():
    objects = [
        node for _, node in parts(schema()) if isinstance(node, dict) and "const" in node.get("properties", {}).get("name", {})
    ]
    keys = {}
    for node in objects:
        keys.setdefault(node["properties"]["name"]["const"], []).append(set(node["properties"]) - {"name"})
    for cls in METHODS.values():
        assert {field.name for field in fields(cls)} in keys[cls.name]


@pytest.mark.parametrize("name", ["linf", "l2"])
def test_the_schema_admits_fractions_for_eps(name):
    choices = schema()["properties"]["threat"]["anyOf"]
    (eps,) = [choice["properties"]["eps"] for choice in choices if choice.get("title", "").lower() == name]
    assert {"type": "string", "pattern": "/"} in eps["anyOf"] and {"type": "number", "minimum": 0} in eps["anyOf"]
