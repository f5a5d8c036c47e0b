"""adamas: image classifiers that are small, fast and adversarially robust at the same time, measured honestly."""

import adamas.waiting  # noqa: F401  (before torch is imported)
from adamas import data
from adamas.artifact import Artifact
from adamas.attacks.fgsm import FGSM
from adamas.attacks.ifgsm import IFGSM
from adamas.attacks.pgd import PGD
from adamas.compress.filters import Filters
from adamas.compress.magnitude import Magnitude
from adamas.compress.ptq import PTQ
from adamas.compress.qat import QAT
from adamas.cost import cost
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate, Evaluation, evaluate
from adamas.fit import Fit, fit
from adamas.models import normalized
from adamas.objectives import MART, TRADES, AdversarialTraining, Natural, TradeOff
from adamas.pipeline import run, run_stage
from adamas.recipe import Recipe, Stage
from adamas.registry import register
from adamas.report.html import write_report
from adamas.roles import Attack, Compressor, Objective, Threat
from adamas.shortcuts import explicit_shortcuts
from adamas.sweep import sweep
from adamas.threat import L2, Linf

__all__ = [
    "FGSM",
    "IFGSM",
    "L2",
    "MART",
    "PGD",
    "PTQ",
    "QAT",
    "TRADES",
    "AdamasError",
    "AdversarialTraining",
    "Artifact",
    "Attack",
    "Compressor",
    "Evaluate",
    "Evaluation",
    "Filters",
    "Fit",
    "Linf",
    "Magnitude",
    "Natural",
    "Objective",
    "Recipe",
    "Stage",
    "Threat",
    "TradeOff",
    "cost",
    "data",
    "evaluate",
    "explicit_shortcuts",
    "fit",
    "normalized",
    "register",
    "run",
    "run_stage",
    "sweep",
    "write_report",
]
