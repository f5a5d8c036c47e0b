"""Pack an artifact into one small file whose bytes on disk are the claim, and unpack it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from adamas.artifact import CARD, WEIGHTS, Artifact, fingerprint, write_weights
from adamas.deploy.settle import settled
from adamas.errors import AdamasError
from adamas.files import write_json
from adamas.packed.file import read_packed, write_packed
from adamas.weights import bake

PACKED = "model.adamas"
PARTS = {"positions": "positions", "codes": "codes", "scales": "codebooks and scales", "weights": "weights as they are"}
PARTS |= {"vectors": "biases, norms, ranges", "card": "card", "index": "index", "container": "container"}
"""What the parts of a packed file are called."""


@dataclass(frozen=True)
class Packing:
    """A packed file: its bytes on disk by part, the entropy bound of its tensors, and the bytes of the dense float network."""

    path: Path
    parts: dict[str, int]
    entropy_bound: int
    dense: int

    @property
    def total(self) -> int:
        """Bytes on disk."""
        return sum(self.parts.values())


def pack(artifact: Artifact, path: Path | str | None = None, net: nn.Module | None = None) -> Packing:
    """Write an artifact to one file (its own model.adamas if no path is given), from which `Artifact.load` restores it.

    Effective weights and activation ranges come back bit for bit, up to the sign of zeros; float weights behind a rounding or a
    mask, records of epochs, the evaluation and exported files stay behind. `net` is a fresh instance of the user's own network
    when the recipe names none.
    """
    where = artifact.folder / PACKED if path is None else Path(path)
    model, grids = settled(artifact.model(net))
    parts = write_packed(where, _short(artifact.card), model.state_dict(), grids)
    by_name = {name: sum(size for part, size in parts.items() if part.partition(".")[0] == key) for key, name in PARTS.items()}
    dense = 4 * sum(parameter.numel() for parameter in bake(model).parameters())
    return Packing(where, by_name, read_packed(where).entropy_bound(), dense)


def unpack(path: Path | str, out: Path | str, net: nn.Module | None = None) -> Artifact:
    """Write a packed file out as an artifact's directory, weights and card."""
    artifact = Artifact.load(path)
    if not artifact.packed:
        raise AdamasError(f"{path}: expected a packed file, got an artifact's directory")
    out = Path(out)
    write_weights(out / WEIGHTS, artifact.model(net))
    write_json(out / CARD, artifact.card | {"weights": fingerprint(out / WEIGHTS)})
    return Artifact.load(out)


def _short(card: dict[str, Any]) -> dict[str, Any]:
    """A card without the records of training epochs."""
    return card | {"stages": [stage | {"epochs": []} for stage in card["stages"]]}
