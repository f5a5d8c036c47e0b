"""What a packed file weighs, part by part."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from adamas.deploy.pack import Packing


def packing_table(packing: Packing) -> Table:
    """Bytes on disk by part, beside the entropy bound of the tensors and the dense float network."""
    made = Table(title=Text(str(packing.path)), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    made.add_column("part", min_width=24)
    for header in ("bytes", "share"):
        made.add_column(header, justify="right", min_width=12)
    for part, size in packing.parts.items():
        made.add_row(part, f"{size:,}", f"{size / packing.total:.1%}")
    made.add_section()
    made.add_row("the whole file", f"{packing.total:,}", "100.0%", style="bold")
    made.add_row("entropy bound of its tensors", f"{packing.entropy_bound:,}", f"{packing.entropy_bound / packing.total:.1%}")
    made.add_row("dense, 32 bits a weight", f"{packing.dense:,}", f"{packing.dense / packing.total:.1f} x")
    return made
