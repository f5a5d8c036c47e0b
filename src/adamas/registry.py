"""Settings classes and the one registry that feeds recipes, the command line and the contract tests."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from fractions import Fraction
from typing import Annotated, Any, TypeVar, dataclass_transform

import pydantic.dataclasses
from annotated_types import Ge, Gt, Le
from pydantic import (
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from adamas.errors import AdamasError, nearest

T = TypeVar("T", bound=type)

KINDS = {
    "threat": "adamas.threat",
    "attack": "adamas.attacks",
    "objective": "adamas.objectives",
    "compressor": "adamas.compress",
    "score": "adamas.scores",
    "rate": "adamas.rates",
    "model": "adamas.models",
    "dataset": "adamas.data",
}
_registered: dict[str, dict[str, type]] = {kind: {} for kind in KINDS}
_described: set[str] = set()
"""Kinds whose JSON schema is being written."""
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, validate_default=True)


def _number(value: object) -> object:
    """Read "8/255" as a number; anything else is left to the type's own check."""
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            return value
    return value


Number = Annotated[float, BeforeValidator(_number)]
Pixels = Annotated[
    Number, Ge(0), WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "/"}]})
]
"""A distance in pixel units of a [0, 1] image; "8/255" is read as a fraction."""
Share = Annotated[Number, Gt(0), Le(1)]
Count = Annotated[int, Ge(1)]


# ---------------------------------------------------------------------------------------------- settings classes


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: T) -> T:
    """Make a class a frozen, keyword-only, validated dataclass whose error messages are ours."""

    def checked(_: type, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(_completed(cls, value))
        except ValidationError as error:
            details = [_detail(cls, item) for item in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, details) from None

    cls._checked = model_validator(mode="wrap")(classmethod(checked))  # type: ignore[attr-defined]
    made: Any = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)
    construct = made.__init__

    def __init__(self: Any, *args: Any, **values: Any) -> None:
        try:
            construct(self, *args, **values)
        except ValidationError as error:
            raise AdamasError("\n".join(mistakes(error, cls.__name__))) from None

    made.__init__ = __init__
    return made


def _completed(cls: Any, value: Any) -> Any:
    """`{attack: {steps: 3}}` without a name changes the field's default method."""
    if not isinstance(value, dict):
        return value
    methods = {field.name: field.default for field in fields(cls) if hasattr(type(field.default), "kind")}
    nameless = {key for key, inner in value.items() if key in methods and isinstance(inner, dict) and "name" not in inner}
    return value | {key: plain(methods[key]) | value[key] for key in nameless}


def _detail(cls: type, item: Any) -> InitErrorDetails:
    got, key = item["input"], item["loc"][-1] if item["loc"] else ""
    if item["type"] == "adamas":
        message = item["msg"]
    elif item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        message = f"unknown key {key!r}{nearest(key, (field.name for field in fields(cls)))}"
    elif item["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        message = f"{key!r} is required and has no default"
    elif item["type"] == "literal_error":
        message = f"got {got!r}{nearest(got, item['ctx']['expected'].replace(chr(39), '').replace(' or ', ', ').split(', '))}"
    elif item["type"] == "value_error":
        message = str(item["ctx"]["error"])
    else:
        message = f"{item['msg'][0].lower()}{item['msg'][1:]}, got {got!r}"
    return InitErrorDetails(type=PydanticCustomError("adamas", "{message}", {"message": message}), loc=item["loc"], input=got)


def mistakes(error: ValidationError, root: str = "") -> list[str]:
    """Every mistake of a validation as `path: sentence`, or as the sentence alone where the whole is meant."""
    found = [(".".join([root, *map(str, item["loc"])]).strip("."), item["msg"]) for item in error.errors(include_url=False)]
    return [f"{path}: {sentence}" if path else sentence for path, sentence in found]


def parse(cls: type, raw: object) -> Any:
    """Build `cls` from plain values, reporting all mistakes at once as one AdamasError."""
    try:
        return TypeAdapter(cls).validate_python(raw)
    except ValidationError as error:
        raise AdamasError("\n".join(mistakes(error))) from None


def plain(value: Any) -> Any:
    """The reverse of `parse`: nested dicts, lists and scalars with every default written out, fractions kept readable."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {"name": type(value).name} if hasattr(type(value), "name") else {}  # type: ignore[attr-defined]
        return named | {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return readable(value) if isinstance(value, float) else value


def readable(value: float) -> float | str:
    """8/255 for .03137254901960784, and 0.05 for .05."""
    if len(repr(value)) <= 8:
        return value
    fraction = Fraction(value).limit_denominator(10_000)
    return str(fraction) if float(fraction) == value else value


# ------------------------------------------------------------------------------------------------------- registry


@dataclass_transform(frozen_default=True, kw_only_default=True)
def register(kind: str, name: str) -> Callable[[T], T]:
    """Register a method under `name`; its class becomes a settings class, its fields the recipe keys."""

    def add(cls: T) -> T:
        made: Any = settings(cls)
        made.kind, made.name = kind, name
        before: Any = _registered[kind].get(name, made)
        if (before.__module__, before.__qualname__) != (made.__module__, made.__qualname__):
            raise AdamasError(f"{kind} {name!r} is registered twice: {before} and {made}")
        _registered[kind][name] = made
        return made

    return add


def registered(kind: str) -> dict[str, type]:
    """All methods of a kind by name, importing every file of its package first."""
    package = importlib.import_module(KINDS[kind])
    for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
        importlib.import_module(f"{KINDS[kind]}.{module.name}")
    return dict(sorted(_registered[kind].items()))


def find(kind: str, name: str) -> type:
    """The class registered under `name`, or an AdamasError that names the nearest one."""
    known = registered(kind)
    if name not in known:
        raise AdamasError(f"unknown {kind} {name!r}{nearest(name, known)}")
    return known[name]


def label(method: Any) -> str:
    """A method with the settings that differ from its defaults: `pgd(steps=50, restarts=5)`, or how it names itself."""
    if type(method).__str__ is not object.__str__:
        return str(method)
    shown = {
        field.name: (_shown(getattr(method, field.name)), _shown(field.default))
        for field in fields(method)
        if field.default is not MISSING
    }
    inside = ", ".join(f"{key}={value}" for key, (value, default) in shown.items() if value != default)
    return f"{type(method).name}({inside})" if inside else type(method).name


def _shown(value: Any) -> Any:
    return label(value) if hasattr(type(value), "kind") else plain(value)


def describe(cls: type) -> str:
    """The first sentence of a class's docstring."""
    return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())


class Choice:
    """Annotation of a field that holds a registered method: an instance, its name, or {name: ..., key: value}."""

    def __init__(self, kind: str):
        self.kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.pick)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        names = {"enum": list(registered(self.kind))}
        if self.kind in _described:  # an attack of an attack: its keys are checked when it is read
            return {"anyOf": [names, {"type": "object", "required": ["name"]}]}
        _described.add(self.kind)
        try:
            return {"anyOf": [names, *self._object_schemas()]}
        finally:
            _described.remove(self.kind)

    def _object_schemas(self) -> Iterator[dict[str, Any]]:
        for name, cls in registered(self.kind).items():
            schema = TypeAdapter(cls).json_schema()
            schema["properties"] = {"name": {"const": name}, **schema.get("properties", {})}
            schema["required"] = ["name", *schema.get("required", [])]
            schema["additionalProperties"] = False
            schema["description"] = describe(cls)
            yield schema

    def pick(self, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict):
            values = dict(value)
            name = values.pop("name", None)
            if not isinstance(name, str):
                raise PydanticCustomError("adamas", "{m}", {"m": f"expected the {self.kind}'s 'name', got {value!r}"})
            try:
                cls = find(self.kind, name)
            except AdamasError as error:
                raise PydanticCustomError("adamas", "{m}", {"m": str(error)}) from None
            return TypeAdapter(cls).validate_python(values)
        if getattr(type(value), "kind", None) == self.kind:
            return value
        raise PydanticCustomError("adamas", "{m}", {"m": f"expected the {self.kind}'s name or {{name: ...}}, got {value!r}"})
