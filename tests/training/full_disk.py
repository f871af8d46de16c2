"""`unshare --mount python full_disk.py DISK CONFIG STATE`: a real run on a small disk that fills up while it learns.

DISK becomes a file system of its own, seen by this process and its children alone. The run of CONFIG is done on it;
once it learns, the disk is filled to the last byte. Its state is copied to STATE: the disk goes when we end.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from training.preflight import MIB, disk_needed
from training.rundir import RunDir
from training.types import SftConfig


def main(disk: Path, config_file: Path, told: Path) -> None:
    config = SftConfig.model_validate_json(config_file.read_bytes())
    room = sum(disk_needed(config)) + 8 * MIB
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)], check=True)
    run = RunDir.create(disk / "runs" / "r", config)
    with run.log.open("wb") as log:
        child = subprocess.Popen([sys.executable, "-m", "training", str(run.path)], stdout=log, stderr=log)
    while not run.read_metrics() and child.poll() is None:
        time.sleep(0.05)
    fill(disk / "filler")
    child.wait(500)
    told.write_bytes(run.read_state().model_dump_json().encode())
    print(run.log_tail(30), file=sys.stderr)


def fill(path: Path) -> None:
    """Write until there is not one byte left."""
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
