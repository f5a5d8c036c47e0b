"""Threats, one norm per file: random start, steepest ascent, projection, distance, all in pixels of a [0, 1] image."""

from adamas.threat.l1 import L1
from adamas.threat.l2 import L2
from adamas.threat.linf import Linf

__all__ = ["L1", "L2", "Linf"]
