"""An evaluation in the terminal: every attack's figure with its interval, what it added and what it took."""

from __future__ import annotations

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from adamas.audit import Audited
from adamas.curve import Curve
from adamas.evaluate import Evaluation
from adamas.verdict import Rate, Verdict


def evaluated(title: str, found: Evaluation) -> Group:
    """The trained model's table, one line for it without its noise and for every file that scored, and the flags."""
    n = found.samples
    draws = f", mean of {n} draw{'s' if n > 1 else ''} of its noise" if n > 1 or found.noise_off else ""
    head = Text(f"{title}: {found.threat}, n = {found.clean.n}, seed {found.seed}{draws}")
    beside = {"noise off, under the same attacks": found.noise_off} if found.noise_off else {}
    files = {f"{name}, which draws no noise" if beside else name: verdict for name, verdict in found.judged.items()}
    lines = [
        Text(f"{name}: clean {_rate(verdict.clean)}, worst case {_rate(verdict.worst_case)}")
        for name, verdict in {**beside, **files}.items()
    ]
    return Group(head, _verdict(found), *lines, *_flags(found.flags))


def audited(found: Audited) -> Group:
    """The headline as measured on the engine, the table behind it, the twin beside it, and the flags."""
    worst = found.file.worst_case
    return Group(
        Text(f"{found.path} ({found.bytes:,} bytes, sha256 {found.sha256[:16]}...) on {found.engine}"),
        Text(f"worst case {_rate(worst)} under {found.twin.threat}, n = {worst.n}, seed {found.twin.seed}", style="bold"),
        _verdict(found.file),
        Text(
            f"its differentiable twin: worst case {_rate(found.twin.worst_case)}; the same prediction as the file on "
            f"{found.agreement.agreement:.1%} of {found.agreement.n} images"
        ),
        *_flags(found.flags),
    )


def curved(title: str, found: Curve) -> Group:
    """Accuracy at every eps of a security curve."""
    listing = Table("eps", "accuracy", "95 % interval", box=None)
    for eps, rate in zip(found.epsilons, found.rates, strict=True):
        listing.add_row(f"{eps:.5g}", f"{rate.value:.1%}", f"{rate.low:.1%} - {rate.high:.1%}")
    head = Text(
        f"{title}: {found.threat}, {found.attack}, n = {found.n}, seed {found.seed}; median distance {found.median:.5g}"
    )
    return Group(head, listing, *_flags(found.flags))


def _verdict(verdict: Verdict) -> Table:
    listing = Table("", "accuracy", "95 % interval", "attacked", "broken", "seconds", box=None)
    _row(listing, "clean", verdict.clean)
    for attack in verdict.attacks:
        _row(listing, attack.attack, attack.accuracy, f"{attack.attacked}", f"{attack.broken}", f"{attack.seconds:.1f}")
    _row(listing, "worst case", verdict.worst_case)
    return listing


def _row(listing: Table, name: str, rate: Rate, *rest: str) -> None:
    listing.add_row(escape(name), f"{rate.value:.1%}", f"{rate.low:.1%} - {rate.high:.1%}", *rest)


def _rate(rate: Rate) -> str:
    return f"{rate.value:.1%} ({rate.low:.1%} - {rate.high:.1%})"


def _flags(flags: list[str]) -> list[Text]:
    return [Text(f"! {flag}", style="yellow") for flag in flags]
