"""Artifacts: weights, a card that says how they came to be, and what was measured; in a directory or packed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adamas.errors import AdamasError
from adamas.files import read_json, write
from adamas.models import normalized
from adamas.packed.file import read_packed
from adamas.packed.limits import STAGES, bounded
from adamas.recipe import Recipe
from adamas.registry import parse
from adamas.roles import Compressor
from adamas.surgery import resize_to

WEIGHTS, CARD, EVALUATION = "weights.safetensors", "card.json", "evaluation.json"
FORMAT = 1
CARD_KEYS = ("name", "recipe", "network", "image_shape", "classes", "data", "stages", "weights")


@dataclass(frozen=True)
class Artifact:
    """A shipped model on disk; structure comes from code, values from safetensors, nothing is unpickled."""

    path: Path
    card: dict[str, Any]

    @classmethod
    def load(cls, path: Path | str) -> Artifact:
        """Open an artifact's directory or a packed file.

        Errors: no artifact, another format, weights that do not match the card; see `read_packed` for files.
        """
        path = Path(path)
        if path.is_file():
            return cls(path, _checked(read_packed(path).card, path))
        if not path.is_dir():
            raise AdamasError(f"expected an artifact directory with {CARD} and {WEIGHTS}, there is no directory {path}")
        if not (path / CARD).exists():
            inside = [str(found.parent) for found in sorted(path.glob(f"*/{CARD}"))[:5]]
            hint = f"; it holds {', '.join(inside)}" if inside else ""
            raise AdamasError(f"{path}: expected an artifact with {CARD} and {WEIGHTS}, got a directory without{hint}")
        card = _checked(read_json(path / CARD), path / CARD)
        if card.get("weights") != fingerprint(path / WEIGHTS):
            raise AdamasError(
                f"{path / WEIGHTS}: expected the weights that {CARD} was written for, got another or a damaged file"
            )
        return cls(path, card)

    def __str__(self) -> str:
        """One line: where it is and what it withstands; of a packed file, its size."""
        if self.packed:
            return f"{self.path}: {self.card['name']}, packed in {self.path.stat().st_size:,} bytes"
        found = self.evaluation
        clean, worst = found["clean"]["value"], found["worst_case"]["value"]
        return f"{self.path}: clean {clean:.1%}, worst case {worst:.1%} under {found['threat']}, n = {found['test']}"

    @property
    def packed(self) -> bool:
        """Whether it is one file that `adamas pack` wrote."""
        return self.path.is_file()

    @property
    def folder(self) -> Path:
        """The directory it is in."""
        return self.path.parent if self.packed else self.path

    @property
    def recipe(self) -> Recipe:
        """The whole recipe this artifact was made by."""
        return parse(Recipe, self.card["recipe"])

    @property
    def evaluation(self) -> dict[str, Any]:
        """What was measured: accuracies, cost, parity and latency of the exported files. Errors: a packed file has none."""
        if self.packed:
            raise AdamasError(
                f"{self.path}: expected an artifact with its evaluation, got a packed file, which has none; "
                f"measure with `adamas evaluate {self.path}`"
            )
        return read_json(self.path / EVALUATION)

    def model(self, net: nn.Module | None = None) -> nn.Module:
        """The model in eval mode; `net` is a fresh instance of the user's own network when the recipe names none.

        A packed file gives the same effective weights, bit for bit, and may ask for memory only in proportion to its size.
        """
        if not self.packed:
            return self._with(read_weights(self.path / WEIGHTS), net)
        with bounded(self.path):
            if len(self.recipe.stages) > STAGES:
                raise AdamasError(f"{self.path}: expected at most {STAGES} stages, got {len(self.recipe.stages)}")
            if net is None and self.recipe.model is not None:
                with torch.device("meta"):  # takes no memory, but counts
                    self._network()
            return self._with(read_packed(self.path).state(), net)

    def _with(self, state: dict[str, Tensor], net: nn.Module | None) -> nn.Module:
        compressors = [stage.compress for stage in self.recipe.stages if stage.compress]
        return restore(self._network() if net is None else net, compressors, state)

    def _network(self) -> nn.Module:
        """The recipe's network before any stage."""
        recipe = self.recipe
        if recipe.model is None:
            raise AdamasError(
                f"{self.path}: this artifact's network ({self.card['network']}) is not one of adamas's; "
                "pass a fresh instance of it: artifact.model(MyNet())"
            )
        channels = self.card["image_shape"][0]
        body = recipe.model.build(tuple(self.card["image_shape"]), len(self.card["classes"]))
        return normalized(body, [0.0] * channels, [1.0] * channels)


def _checked(card: dict[str, Any], where: Path) -> dict[str, Any]:
    """A card of this format with all that a card has."""
    if card.get("format") != FORMAT:
        raise AdamasError(f"{where}: expected format {FORMAT}, got {card.get('format')!r}")
    missing = [key for key in CARD_KEYS if key not in card]
    if missing:
        raise AdamasError(f"{where}: expected {', '.join(missing)}, got a card without; was it edited by hand?")
    return card


def restore(model: nn.Module, compressors: Sequence[Compressor], state: dict[str, Tensor]) -> nn.Module:
    """Replay the structure of every compressor on a fresh model, take the sizes from `state`, then load it."""
    for compressor in compressors:
        compressor.attach(model)
    resize_to(model, state)
    model.load_state_dict(state)
    return model.eval()


def write_weights(path: Path, model: nn.Module) -> Path:
    """All parameters and buffers as safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    return write(path, lambda temporary: save_file(state, temporary))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or say in one sentence what is wrong with it."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise AdamasError(f"{path}: expected a weights file, there is none") from None
    except SafetensorError as error:
        raise AdamasError(f"{path}: expected an intact safetensors file, got: {error}") from None


def fingerprint(path: Path) -> str:
    """Content id of a file; empty when there is none."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else ""
