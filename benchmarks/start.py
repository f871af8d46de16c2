"""From nothing to a page, and to a help text."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx

from benchmarks.row import Row, within

PAGE_LIMIT, HELP_LIMIT, AGAIN = 10.0, 0.5, 5


def measure(folder: Path) -> list[Row]:
    """Median of five each: process start to first page served, and `--help`."""
    pages = [page_seconds(folder / f"home-{number}") for number in range(AGAIN)]
    helps = [help_seconds() for _ in range(AGAIN)]
    return [
        within("process start to first page", statistics.median(pages), PAGE_LIMIT),
        within("tonesmith --help", statistics.median(helps), HELP_LIMIT),
    ]


def page_seconds(home: Path) -> float:
    """Start the studio with scripted replies, and stop the clock at the first whole page."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "studio", "up", "--engine", "scripted", "--home", str(home), "--port", str(port)]
    began = time.perf_counter()
    studio = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert studio.stdout is not None
        link = next(found[0] for line in studio.stdout if (found := re.search(r"http://\S+/welcome/\S+", line)))
        while True:
            try:
                if httpx.get(link, timeout=30, follow_redirects=True).status_code == 200:
                    return time.perf_counter() - began
            except httpx.TransportError:
                time.sleep(0.02)
    finally:
        studio.send_signal(signal.SIGINT)
        studio.wait(timeout=30)


def help_seconds() -> float:
    """The whole process, as a person waits for it."""
    began = time.perf_counter()
    command = [str(Path(sys.executable).parent / "tonesmith"), "--help"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=os.environ | {"COLUMNS": "100"})
    return time.perf_counter() - began
