"""Writing files so that a kill or a full disk never leaves half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adamas.errors import AdamasError


def write(path: Path, fill: Callable[[Path], Any]) -> Path:
    """Let `fill` write a temporary neighbour of `path`, then move it into place; a failed write leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fill(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    return write(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or say in one sentence what is wrong with the file."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise AdamasError(f"{path}: expected a file, there is none") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AdamasError(f"{path}: expected JSON, got {error}") from None
    if not isinstance(value, dict):
        raise AdamasError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value
