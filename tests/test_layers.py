"""The order of the parts, read from the source: imports run one way, and what is dangerous is done in one place."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from fnmatch import fnmatch

import pytest

from tests.helpers import SOURCE, sources

MODULES = dict(sources())
MAY_IMPORT = {
    "errors": (),
    "registry": ("errors",),
    "dice": (),
    "roles": ("errors", "registry", "dice"),
    "threat*": ("errors", "registry", "roles", "dice", "threat*"),
    "weights": ("errors",),
    "graph": ("errors", "weights"),
    "files": ("errors",),
    "packed*": ("errors", "registry", "files", "packed*"),
    "progress": ("errors",),
    "attacks*": ("errors", "registry", "roles", "threat", "dice", "weights", "graph", "noise", "attacks*"),
    "objectives": ("errors", "registry", "roles", "threat", "weights", "attacks*"),
    "data*": ("errors", "registry", "roles", "files", "progress", "data*"),
    "models*": ("errors", "registry", "noise", "models*"),
    "noise": ("dice", "weights"),
    "check": ("errors", "weights", "graph"),
    "soundness": ("errors", "weights", "roles", "threat*", "dice", "verdict", "attacks*"),
    "outcomes": ("errors", "files"),
    "verdict": ("registry", "roles", "outcomes"),
    "panel": ("errors", "registry", "roles", "outcomes"),
    "cost": ("errors", "weights", "graph", "device"),
    "documents": ("errors",),
}
"""What each of the lower parts may know; `*` stands for a package and everything in it."""

MUST_NOT_IMPORT = {
    "surgery": ("compress*", "attacks*", "fit", "evaluate", "recipe", "pipeline", "deploy*", "report*", "cli"),
    "compress*": ("fit", "evaluate", "recipe", "artifact", "pipeline", "deploy*", "report*", "cli"),
    "recipe": ("attacks*", "compress*", "models.*", "data.*", "pipeline", "artifact", "deploy*", "report*", "cli"),
    "fit": ("recipe", "evaluate", "compress*", "pipeline", "artifact", "deploy*", "report*", "cli"),
    "evaluate": ("recipe", "fit", "compress*", "pipeline", "artifact", "deploy*", "report*", "cli"),
    "artifact": ("fit", "evaluate", "pipeline", "deploy*", "report*", "cli"),
    "deploy*": ("fit", "recipe", "pipeline", "report*", "cli"),
    "report*": ("fit", "pipeline", "cli"),
    "pipeline": ("cli", "sweep"),
}


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that are imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if is_ours(full) else str(node.module)


def is_ours(name: str) -> bool:
    path = SOURCE.joinpath(*name.split(".")[1:])
    return name.startswith("adamas.") and (path.is_dir() or path.with_suffix(".py").is_file())


def our_imports(path: str) -> set[str]:
    return {name.removeprefix("adamas.") for name in imported(MODULES[path]) if name.startswith("adamas.")}


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def files_of(part: str) -> list[str]:
    return [path for path in MODULES if fnmatch(module_name(path), part)]


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_the_lower_parts_know_only_what_is_below_them(part):
    assert files_of(part)
    for path in files_of(part):
        unknown = {name for name in our_imports(path) if not matches(name, MAY_IMPORT[part])}
        assert not unknown, f"{path} imports {unknown}"


@pytest.mark.parametrize("part", MUST_NOT_IMPORT)
def test_the_upper_parts_do_not_know_what_is_above_them(part):
    assert files_of(part)
    for path in files_of(part):
        wrong = {name for name in our_imports(path) if matches(name, MUST_NOT_IMPORT[part])}
        assert not wrong, f"{path} imports {wrong}"


def test_imports_make_no_circle():
    below = {module_name(path): our_imports(path) for path in MODULES}
    done: set[str] = set()
    while len(done) < len(below):
        ready = {name for name in below.keys() - done if below[name] & below.keys() <= done | {name}}
        assert ready, f"a circle among {sorted(below.keys() - done)}"
        done |= ready


def test_torchvision_is_never_needed():
    for path, tree in MODULES.items():
        assert not any(name.split(".")[0] == "torchvision" for name in imported(tree)), path


def test_every_import_is_of_something_declared():
    installed = {name.split(".")[0] for tree in MODULES.values() for name in imported(tree)}
    assert all(importlib.util.find_spec(name) for name in installed)


def test_no_pickle_is_ever_loaded():
    for path, tree in MODULES.items():
        assert not {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & {
            name.split(".")[0] for name in imported(tree)
        }, path


def calls(tree: ast.AST) -> list[str]:
    """The dotted names of everything that is called."""
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_what_could_load_objects_is_told_not_to():
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", path
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("allow_pickle", "False") == "False", path
        dangerous = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "os.system", "torch.hub.load"}
        assert not dangerous & set(calls(tree)), path


def test_no_device_is_written_into_the_code():
    for path, tree in MODULES.items():
        assert not any(name.endswith(".cuda") for name in calls(tree)), path


def test_test_images_are_read_where_things_are_measured_and_nowhere_else():
    readers = {
        path
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "test" and ast.unparse(node.value).split(".")[-1] == "data"
    }
    allowed = ("evaluate.py", "curve.py", "audit.py", "pipeline.py", "deploy/*", "data/*")
    assert "evaluate.py" in readers and all(matches(path, allowed) for path in readers), readers
