"""What a recipe claims of its rows, checked on what was measured: `clean("GAP x8") - transfer("GAP x8") <= .09`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from adamas.artifact import Artifact
from adamas.errors import AdamasError, nearest
from adamas.report.text import DASH


def _transfer(evaluation: dict[str, Any]) -> float:
    return min(attack["accuracy"]["value"] for attack in evaluation["attacks"] if attack["family"] == "transfer")


def _own(evaluation: dict[str, Any]) -> float:
    return min(attack["accuracy"]["value"] for attack in evaluation["attacks"] if attack["family"] != "transfer")


def _under(evaluation: dict[str, Any], name: str) -> float:
    own = [attack for attack in evaluation["attacks"] if attack["family"] != "transfer"]
    found = [attack["accuracy"]["value"] for attack in own if attack["attack"].split("(")[0] == name]
    if not found:
        raise AdamasError(f"claims: expected an attack {name!r} among those that were run, got none")
    return min(found)


METRICS: dict[str, Callable[[dict[str, Any]], float]] = {
    "clean": lambda evaluation: evaluation["clean"]["value"],
    "worst": lambda evaluation: evaluation["worst_case"]["value"],
    "own": _own,
    "transfer": _transfer,
    "nonzeros": lambda evaluation: evaluation["cost"]["nonzeros"],
    "params": lambda evaluation: evaluation["cost"]["params"],
    "codebook_bits": lambda evaluation: evaluation["cost"]["codebook_bits"],
    "unread": lambda evaluation: evaluation["cost"]["unread_channels"] / evaluation["cost"]["input_channels"],
}
"""Of one row: accuracies as fractions (`own`: the least of attacks on the row itself) and counts; the mean over its seeds.
`unread` is the share of input channels whose weights are all zero.

`under("row", "pgd")` is the accuracy under the attacks of one name.
"""
_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_ORDER = {ast.LtE: ("<=", operator.le), ast.GtE: (">=", operator.ge), ast.Eq: ("==", operator.eq)}


@dataclass(frozen=True)
class Verdict:
    """A claim, the numbers on both of its sides, over how many seeds, and whether it holds; None where rows were not run."""

    claim: str
    left: float | None = None
    order: str = ""
    right: float | None = None
    seeds: int = 0
    holds: bool | None = None


def check_claims(claims: Any, rows: Iterable[str]) -> list[str]:
    """The claims of a recipe, each of known metrics on its rows. Errors: every claim that is not, in one message."""
    if not isinstance(claims, list) or not all(isinstance(claim, str) for claim in claims):
        raise AdamasError(f"claims: expected a list of comparisons, got {claims!r}")
    names, mistakes = list(rows), []
    for claim in claims:
        try:
            _check(_parsed(claim), claim, names)
        except AdamasError as error:
            mistakes.append(str(error))
    if mistakes:
        raise AdamasError("\n".join(mistakes))
    return claims


def judged(claims: Sequence[str], artifacts: Sequence[Artifact]) -> list[Verdict]:
    """Every claim on what artifacts, whose names are rows of the recipe, measured."""
    measured = {str(artifact.card["name"]): artifact.evaluation for artifact in artifacts}
    return [_judge(claim, measured) for claim in claims]


def verdicts_table(verdicts: Sequence[Verdict]) -> Table:
    """One line per claim."""
    table = Table("claim", "measured", "seeds", "holds", box=box.SIMPLE_HEAD)
    for verdict in verdicts:
        numbers = DASH if verdict.left is None else f"{verdict.left:.4g} {verdict.order} {verdict.right:.4g}"
        answer = {True: "yes", False: "no", None: "not run"}[verdict.holds]
        table.add_row(escape(verdict.claim), numbers, str(verdict.seeds or DASH), answer)
    return table


def _judge(claim: str, measured: dict[str, dict[str, Any]]) -> Verdict:
    comparison = _parsed(claim)
    named = {node.args[0].value for node in ast.walk(comparison) if isinstance(node, ast.Call)}  # type: ignore[attr-defined]
    seeds = [len(_rows_of(name, measured)) for name in named]
    if not all(seeds):
        return Verdict(claim)
    left, right = _value(comparison.left, measured), _value(comparison.comparators[0], measured)
    sign, holds = _ORDER[type(comparison.ops[0])]
    return Verdict(claim, left, sign, right, min(seeds), bool(holds(left, right)))


def _parsed(claim: str) -> ast.Compare:
    try:
        tree = ast.parse(claim, mode="eval").body
    except (SyntaxError, ValueError):
        tree = None
    if not isinstance(tree, ast.Compare) or len(tree.ops) != 1 or type(tree.ops[0]) not in _ORDER:
        raise AdamasError(f"claims: expected one comparison by <=, >= or ==, got {claim!r}")
    return tree


def _check(node: ast.AST, claim: str, rows: Sequence[str]) -> None:
    """Numbers, + - * /, and metrics of one row: nothing else is ever computed."""
    match node:
        case ast.Compare(left=left, comparators=[right]) | ast.BinOp(left=left, right=right):
            if isinstance(node, ast.BinOp) and type(node.op) not in _ARITHMETIC:
                raise AdamasError(f"claims: expected + - * or /, got {claim!r}")
            _check(left, claim, rows)
            _check(right, claim, rows)
        case ast.Call(func=ast.Name(id=metric), args=[ast.Constant(value=str(row))], keywords=[]):
            if metric not in METRICS:
                raise AdamasError(f"claims: {claim}: unknown metric {metric!r}{nearest(metric, METRICS)}")
            if not _rows_of(row, rows):
                known = {_without_seed(name) for name in rows}
                raise AdamasError(f"claims: {claim}: there is no row {row!r}{nearest(row, known)}")
        case ast.Call(func=ast.Name(id="under"), args=[row, ast.Constant(value=str())], keywords=[]):
            _check(ast.Call(ast.Name("clean"), [row], []), claim, rows)
        case ast.Constant(value=int() | float()):
            return
        case _:
            raise AdamasError(f'claims: expected numbers and metrics such as clean("row"), got {claim!r}')


def _value(node: ast.AST, measured: dict[str, dict[str, Any]]) -> float:
    match node:
        case ast.BinOp(left=left, op=sign, right=right):
            return _ARITHMETIC[type(sign)](_value(left, measured), _value(right, measured))
        case ast.Call(func=ast.Name(id=metric), args=[ast.Constant(value=row)]):
            return fmean(METRICS[metric](measured[name]) for name in _rows_of(str(row), measured))
        case ast.Call(args=[ast.Constant(value=row), ast.Constant(value=attack)]):
            return fmean(_under(measured[name], str(attack)) for name in _rows_of(str(row), measured))
        case ast.Constant(value=number):
            return float(number)  # type: ignore[arg-type]
    raise AssertionError(node)


def _rows_of(name: str, rows: Iterable[str]) -> list[str]:
    return [row for row in rows if name in (row, _without_seed(row))]


def _without_seed(row: str) -> str:
    return re.sub(r" ?\bseed=\d+", "", row).strip()
