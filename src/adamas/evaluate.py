"""Clean and robust accuracy on test data: each attack, and the per-image worst case over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from adamas.attacks.crafting import Precision, Terms, crafting
from adamas.check import checked_logits
from adamas.data import Data
from adamas.data.images import fingerprint
from adamas.device import channels_last, device_of, seeded
from adamas.errors import AdamasError
from adamas.graph import modes_kept
from adamas.noise import SAMPLES, CountedDraws, FixedDraws, draws_noise, without_noise
from adamas.outcomes import Chunk, Store, content_key
from adamas.panel import MODEL, Averaged, Panel, check_inside
from adamas.progress import progress
from adamas.registry import Count, label, plain, settings
from adamas.roles import AnyAttack, Attack, Threat
from adamas.soundness import comparison_flags, probe_flags
from adamas.streamline import streamlined
from adamas.verdict import Rate, Verdict, counted
from adamas.weights import model_fingerprint

PROBED = 64
"""Images on which an evaluation's soundness is checked."""


@settings
class Evaluate:
    """Which attacks are run on the test images, and how.

    White-box attacks come first, then transferred ones, then black boxes, the cheapest of each first, so that what a weaker
    adversary alone can break shows.

    `exhaustive`: every attack attacks every image that is classified right, so that each figure stands for itself.
    `samples`: draws averaged in every prediction and gradient of a randomised model; without it 8 where a network draws noise
    of ours (`adamas.noise`), else 1. `round`: candidates count as they are after rounding to 8 bits. `checks`: look for signs
    of an unsound evaluation.
    `batch_size`: images per pass, fewer where memory is short. `chunk`: images between two saves of the state. `precision`:
    of the passes that craft; what is found is confirmed in fp32, and sought again in fp32 where it does not hold.
    `active`: leave an image as soon as it is broken. `streamline`: craft on a copy with folded batch norms, forward passes in
    ONNX Runtime on a CPU; confirmed and sought again in the same way.
    """

    attacks: tuple[AnyAttack, ...] = ("pgd",)  # type: ignore[assignment]
    exhaustive: bool = False
    samples: Count | None = None
    round: bool = False
    checks: bool = True
    batch_size: Count = 250
    chunk: Count = 500
    precision: Precision = "fp32"
    active: bool = True
    streamline: bool = True


def in_order(attacks: Sequence[Attack]) -> list[Attack]:
    """The attacks one by one, lists such as AutoAttack taken apart, as an evaluation runs them."""
    parts = [part for attack in attacks for part in attack.parts]
    return sorted(parts, key=lambda part: (part.family == "black-box", part.family == "transfer", part.cost))


@dataclass(frozen=True)
class Evaluation(Verdict):
    """What a robustness claim needs to be honest: threat, seed, every attack, worst case, flags.

    `samples`: draws of the noise averaged in every prediction and gradient. `noise_off`: the same network without the noise of
    its own that it draws, under the same attacks.
    """

    threat: str
    seed: int
    flags: list[str] = field(default_factory=list)
    judged: dict[str, Verdict] = field(default_factory=dict)
    samples: int = 1
    noise_off: Verdict | None = None


def evaluate(
    model: nn.Module,
    data: Data,
    settings: Evaluate,
    threat: Threat,
    *,
    seed: int = 0,
    judges: Mapping[str, nn.Module] | None = None,
    also: Sequence[Attack] = (),
    title: str = "evaluate",
    state: Path | str | None = None,
    part: tuple[int, int] = (1, 1),
) -> Evaluation:
    """Clean accuracy, accuracy after each attack and per-image worst case on the test split.

    `judges` are other classifiers that score every candidate too, such as the exported file in its runtime; an attack goes on
    until an image is misclassified by all of them. `also` are attacks that no recipe can name, such as `Transfer`.
    `state` is a folder that keeps every image's outcomes: the same call goes on where it was killed. `part` (k, m) evaluates
    the k-th of m shares of the images, so that m processes with one `state` (or copies of it put together) share the work;
    the call without it then merges.
    A network that draws noise is evaluated by the mean of `samples` draws that are fixed per image by the seed, and once more
    with its noise off; that is where the judges score, since an exported file draws none.
    Errors: a model that gives no finite logits; an attack that leaves the threat; the state of another evaluation.
    """
    device, judges, parts = device_of(model), judges or {}, in_order([*settings.attacks, *also])
    for attack in (*settings.attacks, *also):
        attack.check(threat)
    off = None
    if draws_noise(model):
        off = evaluate(
            without_noise(model), data, replace(settings, samples=1), threat, seed=seed, judges=judges, also=also,
            title=f"{title}, noise off", state=None if state is None else Path(state) / "noise_off", part=part,
        )  # fmt: skip
        judges = {}
    samples = settings.samples or (SAMPLES if off else 1)
    channels_last(model)
    with modes_kept(model):
        sight = next(data.test[:64].batches(64, device=device))[0]
        with seeded(seed, device):
            flags, model = checked_logits(model.eval(), sight, len(data.classes))
        named = replace(settings, samples=samples)
        store = Store(None if state is None else Path(state), _key(model, data, named, threat, seed, judges, also))
        scored: nn.Module = Averaged(model, samples)
        if off:
            scored, model = FixedDraws(model, samples, 2 * seed).eval(), CountedDraws(model, 2 * seed + 1).eval()
        blind = any(attack.family == "black-box" for attack in parts)
        lean = streamlined(model, sight, runtime=blind) if settings.streamline and not off else model
        firsts = _share(range(0, len(data.test), settings.chunk), part)
        images = min(len(firsts) * settings.chunk, len(data.test) - firsts.start)
        with progress(title, images * samples * sum(attack.cost for attack in parts)) as advance:
            work = _Work(model, lean, scored, judges, parts, data, settings, samples, threat, seed, device, advance)
            chunks = [work.run(store.load(first, min(settings.chunk, len(data.test) - first)), store.save) for first in firsts]
    store.merge(chunks, [label(attack) for attack in parts])
    verdicts = {name: counted(name, chunks, parts, settings.exhaustive) for name in (MODEL, *judges)}
    trained = verdicts.pop(MODEL)
    if settings.checks:
        flags += [*(flag for chunk in chunks for flag in chunk.flags), *comparison_flags(trained.attacks)]
    found = Evaluation(**vars(trained), threat=str(threat), seed=seed, flags=flags, judged=verdicts, samples=samples)
    return found if off is None else _beside(found, off)


def _beside(found: Evaluation, off: Evaluation) -> Evaluation:
    """A noisy network's evaluation with that of the same network without its noise, where the judges scored."""
    flags = [*found.flags, *(f"with the noise off, {flag}" for flag in off.flags)]
    quiet = Verdict(off.clean, off.attacks, off.worst_case)
    return replace(found, flags=flags, judged=off.judged, noise_off=quiet)


@dataclass
class _Work:
    """One evaluation in progress: images done, and how many of them still stand."""

    model: nn.Module
    lean: nn.Module
    scored: nn.Module
    judges: Mapping[str, nn.Module]
    parts: Sequence[Attack]
    data: Data
    settings: Evaluate
    samples: int
    threat: Threat
    seed: int
    device: torch.device
    advance: Callable[..., None]
    done: int = 0
    standing: int = 0

    def run(self, chunk: Chunk, save: Callable[[Chunk], object]) -> Chunk:
        """The clean pass and every attack that is not done yet on a chunk's images, each kept as soon as it is done."""
        images = self.data.test[chunk.first : chunk.first + chunk.n]
        x, y = next(images.batches(chunk.n, device=self.device))
        with seeded(self.seed, self.device):
            classifiers = {MODEL: self.scored, **self.judges}
            panel = Panel(classifiers, x, y, self.threat, self.settings.batch_size, self.settings.round)
            clean = panel.start(chunk.clean, chunk.attacks)
        if not chunk.clean:
            chunk.clean = clean
            if self.settings.checks and chunk.first == 0:
                chunk.flags = self._probe(panel)
            save(chunk)
        for attack in self.parts[len(chunk.attacks) :]:
            start = time.perf_counter()
            self._attack(attack, panel)
            chunk.attacks.append(panel.end())
            chunk.seconds.append(round(time.perf_counter() - start, 3))
            save(chunk)
        self.done, self.standing = self.done + chunk.n, self.standing + int(panel.standing[MODEL].sum())
        return chunk

    def _probe(self, panel: Panel) -> list[str]:
        right = panel.clean[MODEL].nonzero().squeeze(1)[:PROBED]
        with seeded(self.seed, self.device):
            return probe_flags(self.model, panel.x[right], panel.y[right], self.threat) if len(right) else []

    def _attack(self, attack: Attack, panel: Panel) -> None:
        """Craft and score; what a copy or low precision finds and the model denies is sought again on the model in fp32."""
        rows = panel.begin(attack, self.settings.exhaustive)
        price = attack.cost * self.samples
        planned = price * len(rows)
        self.advance(self._note(attack, panel), price * (len(panel.y) - len(rows)))
        attempts: list[tuple[nn.Module, Precision]] = [(self.lean, self.settings.precision), (self.model, "fp32")]
        if attempts[0] == attempts[1]:
            del attempts[1]
        for model, precision in attempts:
            doubted = torch.zeros(len(panel.y), dtype=torch.bool, device=self.device)
            if len(rows):
                planned -= self._craft(attack, panel, rows, model, precision, doubted)
            rows = (doubted & panel.unbroken).nonzero().squeeze(1)
        self.advance(self._note(attack, panel), max(0, planned))

    def _craft(
        self, attack: Attack, panel: Panel, rows: Tensor, model: nn.Module, precision: Precision, doubted: Tensor
    ) -> int:
        """Run the attack on some rows; marks as doubted what it took for broken and the panel did not. Returns passes made."""
        passes = 0

        def tick(n: int) -> None:
            nonlocal passes
            passes += n
            self.advance(steps=n)

        def accept(some: Tensor, x_adv: Tensor) -> Tensor:
            accepted = panel.score(rows[some], x_adv)
            doubted[rows[some]] |= ~accepted
            return accepted

        terms = Terms(
            batch_size=self.settings.batch_size, samples=self.samples, precision=precision,
            search=True, active=self.settings.active, accept=accept, tick=tick,
        )  # fmt: skip
        with seeded(self.seed, self.device), crafting(model, terms=terms) as victim:
            x_adv = attack(victim, panel.x[rows], panel.y[rows], self.threat)
        check_inside(attack, x_adv, panel.x[rows], self.threat)
        left = panel.unbroken[rows]
        with seeded(self.seed, self.device):
            panel.score(rows[left], x_adv[left])
        return passes

    def _note(self, attack: Attack, panel: Panel) -> str:
        standing = int((panel.standing[MODEL] & panel.now[MODEL]).sum())
        rate = Rate.of(self.standing + standing, self.done + len(panel.y))
        return f"{label(attack)}, {standing} images stand, robust so far {rate.value:.1%} ({rate.low:.1%} - {rate.high:.1%})"


def _share(firsts: range, part: tuple[int, int]) -> range:
    """The k-th of m consecutive shares of the chunks. Errors: k outside 1..m, more shares than chunks."""
    k, m = part
    if not 1 <= k <= m <= len(firsts):
        raise AdamasError(
            f"part: expected k/m with 1 <= k <= m <= {len(firsts)}, the number of chunks of {firsts.step} images, got {k}/{m}"
        )
    return firsts[len(firsts) * (k - 1) // m : len(firsts) * k // m]


def _key(
    model: nn.Module,
    data: Data,
    settings: Evaluate,
    threat: Threat,
    seed: int,
    judges: Mapping[str, nn.Module],
    also: Sequence[Attack],
) -> str:
    """Everything that decides an image's outcome."""
    models = [model_fingerprint(part) for part in (model, *judges.values(), *_sources(also))]
    names = [*judges, *map(label, also)]
    return content_key(version("adamas"), models, names, fingerprint(data.test), plain(settings), plain(threat), seed)


def _sources(attacks: Sequence[Attack]) -> list[nn.Module]:
    """The models that attacks carry with them."""
    return [value for attack in attacks for value in vars(attack).values() if isinstance(value, nn.Module)]
