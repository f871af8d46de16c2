"""Our training run against a plain trl script on the same rows, one after the other, then the other way round."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.project import demo, start_run, wait_for_run
from benchmarks.row import Row

STEPS = 20
AT_LEAST = 0.95


def measure(folder: Path) -> list[Row]:
    """Tokens a second (padding left out, model loading left out), ours over the plain script's."""
    services, version = demo(folder / "trainer", engine="scripted")
    base = services.serving.base_path()
    ours: list[float] = []
    plain: list[float] = []
    for ours_first in (True, False):
        for our_turn in (ours_first, not ours_first):
            if our_turn:
                run_id = start_run(services, version, f"bench-{len(ours)}", STEPS)
                wait_for_run(services, run_id, every=1.0)
                ours.append(services.training.view(run_id).metrics[-1].tokens_per_second)
            else:
                plain.append(plain_trl(services.datasets.folder(version) / "sft.jsonl", str(base), folder / "plain"))
    services.close()
    mine, theirs = statistics.mean(ours), statistics.mean(plain)
    what = f"training, {STEPS} steps"
    return [
        Row(what, f"{mine:.0f} tokens/s", f"plain trl {theirs:.0f} tokens/s", mine / theirs, mine / theirs >= AT_LEAST)
    ]


def plain_trl(rows: Path, base: str, output: Path) -> float:
    """Tokens a second of the script below, in a process of its own as ours has."""
    command = [sys.executable, "-m", "benchmarks.plain_trl", str(rows), base, str(output), str(STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["tokens_per_second"])
