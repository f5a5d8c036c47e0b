"""The pickles of CIFAR's python version, read by a stack machine that builds values and can do nothing else.

Nothing is imported, called or executed: the numpy functions that such a pickle asks for are only names here.
"""

from __future__ import annotations

import pickletools
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from adamas.errors import AdamasError

_RECONSTRUCT, _NDARRAY, _DTYPE, _ARRAY, _UINT8 = (object() for _ in range(5))
_FUNCTIONS = {
    "numpy.core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy ndarray": _NDARRAY,
    "numpy dtype": _DTYPE,
}
_SILENT = ("PROTO", "FRAME", "STOP")
_NUMBERS, _TEXTS = ("BININT", "BININT1", "BININT2", "LONG1"), ("STRING", "BYTES", "UNICODE")
_VALUES = {*_NUMBERS, *(f"{size}BIN{text}" for size in ("", "SHORT_") for text in _TEXTS)}
_NEW = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_PUTS, _GETS = ("BINPUT", "LONG_BINPUT", "MEMOIZE"), ("BINGET", "LONG_BINGET")
_TAKE_TO_MARK = ("TUPLE", "APPENDS", "SETITEMS")
_TAKE_TWO = ("TUPLE2", "SETITEM", "STACK_GLOBAL", "REDUCE", "BUILD")
_TAKE = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "APPEND": 1, "TUPLE3": 3} | dict.fromkeys(_TAKE_TWO, 2)


class _Refused(Exception):
    """Something that a data file has no reason to hold."""


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle of protocol 2 to 4: lists, tuples, text, bytes, integers and uint8 arrays; keys as text.

    Errors: anything else, refused by name and never built; a damaged file.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about escapes in damaged names
            content = _run(path.read_bytes())
        if not isinstance(content, dict):
            raise _Refused(f"a {type(content).__name__}")
    except _Refused as refused:
        raise AdamasError(
            f"{path}: expected a pickled dictionary of lists, text, integers and uint8 arrays, got {refused}; "
            "nothing in the file was executed, use the published one"
        ) from None
    except (OSError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise AdamasError(f"{path}: expected a readable, whole pickle, got {type(error).__name__}; copy it again") from error
    return {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in content.items()}


def _run(content: bytes) -> object:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    for opcode, arg, _ in pickletools.genops(content):
        name = opcode.name
        if name in _VALUES:
            stack.append(arg)
        elif name in _PUTS:
            memo[len(memo) if name == "MEMOIZE" else arg] = stack[-1]
        elif name in _GETS:
            stack.append(memo[arg])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _NEW:
            stack.append(_NEW[name]())
        elif name == "GLOBAL":
            stack.append(_function(str(arg)))
        elif name in _TAKE_TO_MARK:
            _combine(name, stack, _cut(stack, marks.pop()))
        elif name in _TAKE:
            _combine(name, stack, _cut(stack, len(stack) - _TAKE[name]))
        elif name not in _SILENT:
            raise _Refused(f"the instruction {name}")
    return stack.pop()


def _cut(stack: list[Any], start: int) -> list[Any]:
    if not 0 <= start <= len(stack):
        raise IndexError
    items = stack[start:]
    del stack[start:]
    return items


def _combine(name: str, stack: list[Any], items: list[Any]) -> None:
    if "TUPLE" in name:
        stack.append(tuple(items))
    elif "APPEND" in name:
        _top(stack, list).extend(items)
    elif "SETITEM" in name:
        keys = items[::2]
        if not all(isinstance(key, str | bytes) for key in keys):
            raise _Refused("a key that is not text")
        _top(stack, dict).update(zip(keys, items[1::2], strict=True))
    elif name == "STACK_GLOBAL":
        stack.append(_function(" ".join(items)))
    else:
        stack.append(_reduced(*items) if name == "REDUCE" else _built(*items))


def _top(stack: list[Any], kind: type) -> Any:
    if not isinstance(stack[-1], kind):
        raise _Refused(f"a {type(stack[-1]).__name__} in place of a {kind.__name__}")
    return stack[-1]


def _function(name: str) -> object:
    if name not in _FUNCTIONS:
        raise _Refused(f"the function {name.replace(' ', '.')[:80]!r}")
    return _FUNCTIONS[name]


def _reduced(function: object, arguments: Any) -> object:
    if function is _RECONSTRUCT:
        return _ARRAY
    if function is not _DTYPE:
        raise _Refused("a call")
    if arguments[0] not in ("u1", "|u1"):
        raise _Refused(f"an array of dtype {str(arguments[0])[:20]!r}")
    return _UINT8


def _built(target: object, state: Any) -> object:
    if target is _UINT8:
        return _UINT8  # its state is the byte order, and one byte has none
    if target is not _ARRAY:
        raise _Refused("an object with a state")
    _, shape, dtype, fortran, raw = state
    if dtype is not _UINT8:
        raise _Refused("an array that is not uint8")
    data = np.frombuffer(raw.encode("latin-1") if isinstance(raw, str) else raw, np.uint8)
    return data.reshape(shape, order="F" if fortran else "C")
