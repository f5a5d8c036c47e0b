"""Where an artifact stands in the taxonomy of adversarial pruning, as far as its own card tells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from adamas.compress.admm import ADMM
from adamas.compress.admm_filters import ADMMFilters
from adamas.compress.filters import Filters
from adamas.compress.lsq import LSQ
from adamas.compress.prune import Prune
from adamas.compress.ptq import PTQ
from adamas.compress.qat import QAT
from adamas.documents import changed
from adamas.recipe import Recipe, Stage
from adamas.registry import parse, plain, settings
from adamas.roles import Compressor, Objective

US, S = "Unstructured (US)", "Structured (S) filters"
LOCAL, GLOBAL = "Local Pruning (L)", "Global Pruning (G)"
LOCALITY = {"uniform": LOCAL} | dict.fromkeys(("global", "lamp", "learned", "erk", "size"), GLOBAL)
"""By rates: local where every layer keeps the same share, global where one budget is divided unevenly, as HARP's is."""
LWM, LIS = "Lowest Weight Magnitude (LWM)", "Least Importance Score (LIS)"
CRITERION = {"magnitude": LWM, "learned": LIS, "gradient": LIS, "taylor": LIS, "gap": "Highest Gradient Magnitude (HGM)"}
NATURAL, ADVERSARIAL, NOTHING = "Natural Training (NT)", "Adversarial Training (AT)", "None"
PIPELINE = {"A": "After", "B": "Before", "D": "During"}
RADMM = (
    "RADMM_Ye2019Adversarial",
    "https://openaccess.thecvf.com/content_ICCV_2019/papers/"
    "Ye_Adversarial_Robustness_vs._Model_Compression_or_Both_ICCV_2019_paper.pdf",
)
METHODS = {
    ("prune", "learned", "learned"): ("HARP_Zhao2023Holistic", "https://openreview.net/pdf?id=sAJDi9lD06L"),
    ("filters", "learned", "learned"): ("HARP_Zhao2023Holistic", "https://openreview.net/pdf?id=sAJDi9lD06L"),
    ("prune", "learned", "uniform"): ("HYDRA_Sehwag2020Hydra", "https://arxiv.org/pdf/2002.10509.pdf"),
    ("admm", "", "uniform"): RADMM,
    ("admm_filters", "", "uniform"): RADMM,
}
"""The benchmark's entries that adamas implements, by compressor, scores and rates."""


def _key(value: str) -> str:
    if not re.fullmatch(r"[^\W_][\w.+-]*?_[^\W\d_]+\d{4}[^\W_]+", value):
        raise ValueError(f"expected Name_AuthorYearWord such as HARP_Zhao2023Holistic, got {value!r}")
    return value


@settings
class Taxonomy:
    """One entry of the benchmark's taxonomy; None is what is not known.

    `pipeline`: pruning after (A), before (B) or during training (D). `pretraining` and `finetuning`: objectives before and
    after pruning; in pipeline B those of the pruning and the training step, in D the latter is all there is. `shots`: one-shot
    or iterative. Source: Piras et al. 2024, section 3.
    """

    key: Annotated[str, AfterValidator(_key)] | None = None
    link: str | None = None
    pipeline: Literal["A", "B", "D"] | None = None
    pretraining: str | None = None
    finetuning: str | None = None
    shots: Literal["1S", "IT"] | None = None
    structure: str | None = None
    locality: str | None = None
    criterion: str | None = None

    def entry(self) -> dict[str, str | None]:
        """The fields as the benchmark's taxonomy.json names them, odd spaces and all; A's where the pipeline is not known."""
        kind = self.pipeline or "A"
        shots = {f"{kind}: OneShot (1S) vs Iterative (IT)": self.shots}
        when = f"{kind}-Methods Pruning {PIPELINE[kind]} Training" if self.pipeline else None
        steps: dict[str, dict[str, str | None]] = {
            "A": {"A: Pretraining ": self.pretraining, "A: Finetuning": self.finetuning, **shots},
            "B": {"B: Pruning step ": self.pretraining, "B: Training step ": self.finetuning, **shots},
            "D": {"D: Training step ": self.finetuning},
        }
        head = {"link_to_paper": self.link, "ap_key": self.key, "Type of Pipeline:": when}
        specifics = {"structure": self.structure, "locality": self.locality, "criterion": self.criterion}
        return head | steps[kind] | {f"Pruning {name}": value for name, value in specifics.items()}


def filled(known: Taxonomy, values: Sequence[str]) -> Taxonomy:
    """With fields that the card cannot tell, as "name=value". Errors: an unknown field, a value that it does not take."""
    return parse(Taxonomy, changed(plain(known), list(values)))


def taxonomy(recipe: Recipe, network: str) -> Taxonomy:
    """What a recipe's stages tell, and nothing else; `network` is the one it was run with.

    The fit of a stage whose masks are trained is part of pruning; the fit of any other pruning stage is fine-tuning.
    """
    stages, pruned = recipe.stages, pruning(recipe.stages)
    if not pruned:
        return Taxonomy(pretraining=_objectives(stages))
    first, last = pruned[0], pruned[-1]
    before, (opened, closed) = stages[:first], (stages[first], stages[last])
    tuned = _objectives([*([] if _trains_masks(closed.compress) else [closed]), *stages[last + 1 :]])
    shared: dict[str, Any] = _specifics([stage.compress for i, stage in enumerate(stages) if i in pruned])
    if any(_step_by_step(stages[i]) for i in pruned):
        shared["shots"] = "IT"
    if any(stage.fit for stage in before):
        found = Taxonomy(pipeline="A", pretraining=_objectives(before), finetuning=tuned, **shared)
        return parse(Taxonomy, plain(found) | _published(found, opened.compress))
    if recipe.model is None or network != recipe.model.name or not shared["structure"]:
        return Taxonomy(finetuning=tuned, **shared)  # whether weights of the user's own were trained before is not told
    if isinstance(opened.compress, ADMM | ADMMFilters):
        return Taxonomy(pipeline="D", finetuning=_objectives(stages[first:]), **shared)
    return Taxonomy(pipeline="B", pretraining=_pruning_step(opened), finetuning=tuned, **shared)


def pruning(stages: Sequence[Stage]) -> list[int]:
    """The numbers of the stages that may prune: those whose compressor is no quantizer."""
    return [
        i for i, stage in enumerate(stages) if stage.compress is not None and not isinstance(stage.compress, LSQ | PTQ | QAT)
    ]


def _specifics(compressors: Sequence[Compressor | None]) -> dict[str, str | None]:
    """How was pruned; where stages differ, each way once."""
    facts = zip(*map(_facts, compressors), strict=True)
    structure, locality, criterion = (None if None in fact else ", ".join(dict.fromkeys(fact)) for fact in facts)  # type: ignore[arg-type]
    alike = len({type(compressor) for compressor in compressors}) == 1
    shots = "1S" if len(compressors) == 1 else "IT" if alike else None
    return {"shots": shots, "structure": structure, "locality": locality, "criterion": criterion}


def _facts(compressor: Compressor | None) -> tuple[str | None, str | None, str | None]:
    """Structure, locality and criterion of one compressor; nothing is known of one that is not adamas's own."""
    if isinstance(compressor, ADMM | ADMMFilters):
        return US if isinstance(compressor, ADMM) else S, LOCALITY.get(_rates(compressor)), "Solver Based LWM (SOLWM)"
    if isinstance(compressor, Prune | Filters):
        structure = US if isinstance(compressor, Prune) else S
        return structure, LOCALITY.get(compressor.rates.name), CRITERION.get(compressor.scores.name)
    return None, None, None


def _trains_masks(compressor: Compressor | None) -> bool:
    return compressor is not None and compressor.needs_fit


def _step_by_step(stage: Stage) -> bool:
    return isinstance(stage.compress, Prune) and stage.compress.gradual and stage.fit is not None


def _pruning_step(stage: Stage) -> str | None:
    """The objective that pruning before training looks at, if any."""
    if _trains_masks(stage.compress):
        return _objectives([stage])
    blind = isinstance(stage.compress, Prune | Filters) and stage.compress.scores.name in ("magnitude", "random")
    return NOTHING if blind else None


def _published(found: Taxonomy, compressor: Compressor | None) -> dict[str, str]:
    """Key and link of the benchmark's entry, where the artifact was made as that one is: adversarially, in one shot."""
    robust = all((text or "").startswith(ADVERSARIAL) for text in (found.pretraining, found.finetuning))
    if not robust or found.shots != "1S" or not isinstance(compressor, Prune | Filters | ADMM | ADMMFilters):
        return {}
    scores = compressor.scores.name if isinstance(compressor, Prune | Filters) else ""
    return dict(zip(("key", "link"), METHODS.get((compressor.name, scores, _rates(compressor)), ()), strict=False))


def _rates(compressor: Prune | Filters | ADMM | ADMMFilters) -> str:
    """How a compressor divides its budget; on channels, ADMM keeps the same share of each group."""
    return "uniform" if isinstance(compressor, ADMMFilters) else compressor.rates.name


def _objectives(stages: Iterable[Stage]) -> str | None:
    """What the fits of some stages train by, each once; "None" where there is no fit, None where one is not known."""
    names = [_objective(stage.fit.objective) for stage in stages if stage.fit is not None]
    return None if None in names else " + ".join(dict.fromkeys(names)) or NOTHING  # type: ignore[arg-type]


def _objective(objective: Objective) -> str | None:
    if objective.name == "natural":
        return NATURAL
    if objective.name in ("adversarial", "trade_off"):
        return f"{ADVERSARIAL} {objective.attack.name.upper()}"  # type: ignore[attr-defined]
    return f"{ADVERSARIAL} {objective.name.upper()}" if objective.name in ("trades", "mart", "free") else None
