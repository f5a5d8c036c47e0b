"""Which images of an attack's call still stand, and the best that was found for each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Accept = Callable[[Tensor, Tensor], Tensor]
"""Rows (M,) of the attacked images and candidates (M, ...) for them, to which of them count, (M,) bool."""
SETTLE = 4
"""On an accelerator, steps between two looks at which images are broken: each look waits for the device."""


class Search:
    """The standing images of one call: originals `x`, labels `y` and their `rows` in what the attack was given.

    `found` starts as the images given and ends as what the attack returns.
    """

    def __init__(self, x: Tensor, y: Tensor, *, active: bool = True, accept: Accept | None = None):
        self.found, self.x, self.y = x.clone(), x, y
        self.rows = torch.arange(len(x), device=x.device)
        self._active, self._accept = active, accept
        self._every, self._steps = (1 if x.device.type == "cpu" else SETTLE), 0
        self._hit: Tensor | None = None
        self._candidates = x

    def __len__(self) -> int:
        return len(self.rows)

    def narrow(self, x_adv: Tensor, logits: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Look at one candidate inside the threat per standing image: what is misclassified and accepted is taken and leaves.

        Returns `x_adv` and every state (one row per standing image) without the rows that left.
        """
        return self.take(x_adv, logits.argmax(1) != self.y, *states)

    def take(self, x_adv: Tensor, hit: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """As `narrow`, for candidates of which only those marked in `hit` (rows,) are inside the threat and misclassified."""
        self._note(x_adv, hit)
        self._steps += 1
        if self._steps % self._every:
            return x_adv, *states
        return self.settle(x_adv, *states)

    def settle(self, *states: Tensor) -> tuple[Tensor, ...]:
        """Take what was noted so far; returns the states without the rows that left."""
        hit, self._hit = self._hit, None
        if hit is None or not (some := hit.nonzero().squeeze(1)).numel():
            return states
        candidates = self._candidates[some]
        if self._accept is not None:
            accepted = self._accept(self.rows[some], candidates)
            some, candidates = some[accepted], candidates[accepted]
        self.found[self.rows[some]] = candidates
        if not self._active or not some.numel():
            return states
        stays = torch.ones_like(hit).index_fill_(0, some, False)
        self.rows, self.x, self.y = self.rows[stays], self.x[stays], self.y[stays]
        return tuple(state[stays] for state in states)

    def keep(self, x_adv: Tensor) -> None:
        """What is returned for the standing images if nothing better is found; not for those kept after success."""
        if self._active:
            self.found[self.rows] = x_adv
        else:
            unbroken = (self.found[self.rows] == self.x).flatten(1).all(1)
            self.found[self.rows[unbroken]] = x_adv[unbroken]

    def _note(self, x_adv: Tensor, hit: Tensor) -> None:
        if self._hit is None:
            self._hit, self._candidates = hit, x_adv
        else:
            new = (hit & ~self._hit).view(-1, *[1] * (x_adv.dim() - 1))
            self._hit, self._candidates = self._hit | hit, x_adv.where(new, self._candidates)
