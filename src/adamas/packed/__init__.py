"""Tensors in as few bytes as they need: positions, bit-packed codes and codebooks, in one checked file."""
