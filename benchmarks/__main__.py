"""`python -m benchmarks`: measure everything, one row each; `python -m benchmarks start judgement` only those.

Ends with 1 where a row is short of what it is held against.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    adapter_load,
    argilla_kills,
    argilla_search,
    argilla_sync,
    batch,
    chats,
    crowd,
    desk_page,
    judgement,
    pair,
    served,
    start,
    streaming,
    swaps,
    to_first_token,
    trainer,
)
from benchmarks.row import Row
from training.hardware import detect

MEASURES: dict[str, Callable[[Path], list[Row]]] = {
    "start": start.measure,
    "judgement": judgement.measure,
    "desk": desk_page.measure,
    "crowd": crowd.measure,
    "argilla-search": argilla_search.measure,
    "argilla-sync": argilla_sync.rows,
    "argilla-kills": argilla_kills.measure,
    "trainer": trainer.measure,
    "first-token": to_first_token.measure,
    "swaps": swaps.measure,
    "streaming": streaming.measure,
    "pair": pair.measure,
    "adapter-load": adapter_load.measure,
    "chats": chats.measure,
    "batch": batch.measure,
}


def main(chosen: list[str], out: Console) -> int:
    """Run the chosen measures (all without a choice), print the table, and then name the rows that are short; returns
    how the process ends, 1 if there are any.
    """
    hardware = detect()
    table = Table(
        "What", "Measured", "Held against", "Ratio", "", title=f"{platform.machine()}, {hardware.cpu_cores} cores"
    )
    short = []
    with tempfile.TemporaryDirectory(prefix="tonesmith-bench-") as folder:
        try:
            for name in chosen or list(MEASURES):
                out.print(f"Measuring: {name} …", style="dim")
                for row in MEASURES[name](Path(folder)):
                    cells = row.what, row.measured, row.against, f"{row.ratio:.2f}", "ok" if row.good else "SHORT"
                    out.print("  " + " · ".join(cells), style="dim")  # the next one may fail
                    table.add_row(*cells)
                    short += [] if row.good else [row.what]
        finally:
            served.stop(Path(folder))
    out.print(table)
    if short:
        out.print(f"Short: {'; '.join(short)}.", style="bold red")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console()))
