"""The checks that families share."""

from __future__ import annotations

from adamas.errors import AdamasError


def at_least(pixels: int, image_shape: tuple[int, int, int], name: str) -> None:
    """Refuse images (C, H, W) of which nothing would be left after the poolings of the model `name`."""
    if min(image_shape[1:]) < pixels:
        height, width = image_shape[1:]
        raise AdamasError(
            f"model: expected images of at least {pixels}x{pixels} pixels for {name}, got {height}x{width}; "
            "resnet20 takes any size"
        )


def check_depth(depth: int, rest: int, known: str) -> None:
    """Refuse a depth that is not 6n + `rest`; `known`: depths in use."""
    if depth % 6 != rest:
        below = depth - (depth - rest) % 6
        raise ValueError(f"depth: expected 6n+{rest} ({known}), got {depth}; the nearest are {below} and {below + 6}")
