"""How much a file may ask for: a few bytes must never make a machine give away its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from adamas.errors import AdamasError

WINDOW = 2**23
"""Bytes that decompression may look back."""
TEXT = 2**24
"""Bytes of the card, and of the index."""
STAGES = 64
"""Stages of the recipe in a packed file."""
PER_TENSOR = 2**15
"""What a tensor counts besides its values: the module it is in, and the time it takes to make."""


def content_limit(size: int) -> int:
    """Bytes that a file of `size` bytes may decompress to; honest content is hardly larger than the file."""
    return max(2**20, 64 * size)


def tensor_limit(size: int) -> int:
    """Bytes of all tensors in a file of `size` bytes: enough for one weight of a thousand, and for any small network."""
    return max(2**26, 2048 * size)


@contextmanager
def bounded(path: Path) -> Iterator[None]:
    """Build networks as a packed file asks, until the block ends, with memory in proportion to its size.

    Errors: parameters and buffers, as often as they are made, of four times the limit of its tensors; anything that goes wrong.
    """
    limit, spent = 4 * tensor_limit(path.stat().st_size), 0

    def count(module: object, name: str, tensor: Tensor | None) -> None:
        nonlocal spent
        spent += PER_TENSOR + (0 if tensor is None else tensor.numel() * tensor.element_size())
        if spent > limit:
            raise AdamasError(f"{path}: expected a network of at most {limit:,} bytes for so small a file, got a larger one")

    hooks = register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)
    try:
        yield
    except AdamasError:
        raise
    except Exception as error:
        message = (str(error).splitlines() or [""])[0]
        raise AdamasError(
            f"{path}: expected a card that the network can be built from, got {type(error).__name__}: {message}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
