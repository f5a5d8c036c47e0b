"""adamas: image classifiers that are small, fast and adversarially robust at the same time, measured honestly."""

import adamas.waiting  # noqa: F401  (before torch is imported)
from adamas import data
from adamas.artifact import Artifact
from adamas.attacks.apgd import APGD
from adamas.attacks.apgd_targeted import APGDT
from adamas.attacks.autoattack import AutoAttack, Screen
from adamas.attacks.carlini_wagner import CarliniWagner
from adamas.attacks.deepfool import DeepFool
from adamas.attacks.eot import EOT
from adamas.attacks.fab import FAB
from adamas.attacks.fgsm import FGSM
from adamas.attacks.fmn import FMN
from adamas.attacks.ifgsm import IFGSM
from adamas.attacks.pgd import PGD
from adamas.attacks.square import Square
from adamas.attacks.transfer import Transfer
from adamas.attacks.wrm import WRM
from adamas.audit import Audit, audit
from adamas.compress.admm import ADMM
from adamas.compress.admm_filters import ADMMFilters
from adamas.compress.atmc import ATMC
from adamas.compress.binary_relax import BinaryRelax
from adamas.compress.filters import Filters
from adamas.compress.low_rank import LowRank
from adamas.compress.lsq import LSQ
from adamas.compress.prune import Prune
from adamas.compress.ptq import PTQ
from adamas.compress.qat import QAT
from adamas.compress.zero_channels import ZeroChannels
from adamas.cost import cost
from adamas.curve import security_curve
from adamas.deploy.pack import pack, unpack
from adamas.deploy.runtime import OnnxModel
from adamas.deploy.twin import twin
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate, Evaluation, evaluate
from adamas.fit import Fit, fit
from adamas.models import normalized
from adamas.objectives import MART, TRADES, AdversarialTraining, FreeTraining, Natural, TradeOff
from adamas.pipeline import run, run_stage
from adamas.recipe import FromStage, Recipe, Stage
from adamas.registry import register
from adamas.report.html import write_report
from adamas.roles import Attack, Compressor, Objective, Threat
from adamas.shortcuts import explicit_shortcuts
from adamas.sweep import sweep
from adamas.threat import L1, L2, Linf

__all__ = [
    "ADMM",
    "APGD",
    "APGDT",
    "ATMC",
    "EOT",
    "FAB",
    "FGSM",
    "FMN",
    "IFGSM",
    "L1",
    "L2",
    "LSQ",
    "MART",
    "PGD",
    "PTQ",
    "QAT",
    "TRADES",
    "WRM",
    "ADMMFilters",
    "AdamasError",
    "AdversarialTraining",
    "Artifact",
    "Attack",
    "Audit",
    "AutoAttack",
    "BinaryRelax",
    "CarliniWagner",
    "Compressor",
    "DeepFool",
    "Evaluate",
    "Evaluation",
    "Filters",
    "Fit",
    "FreeTraining",
    "FromStage",
    "Linf",
    "LowRank",
    "Natural",
    "Objective",
    "OnnxModel",
    "Prune",
    "Recipe",
    "Screen",
    "Square",
    "Stage",
    "Threat",
    "TradeOff",
    "Transfer",
    "ZeroChannels",
    "audit",
    "cost",
    "data",
    "evaluate",
    "explicit_shortcuts",
    "fit",
    "normalized",
    "pack",
    "register",
    "run",
    "run_stage",
    "security_curve",
    "sweep",
    "twin",
    "unpack",
    "write_report",
]
