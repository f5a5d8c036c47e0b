"""Attacks, one per file; norm geometry is the threat's, loss gradients come from `crafting`."""
