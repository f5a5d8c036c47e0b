"""adamas: image classifiers that are small, fast and adversarially robust at the same time, measured honestly."""

__version__ = "0.1.0"
