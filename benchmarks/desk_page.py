"""The desk in Chromium over 200,000 conversations: from the key that saves to the next reply on screen, and what the
page's process weighs at its most while every page is opened; on SQLite and on PostgreSQL."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from playwright.sync_api import Page, sync_playwright

from annotation.store import open_store
from benchmarks import full_store
from benchmarks.judgement import at_rest, percentile, postgresql
from benchmarks.row import Row, within

ITEMS = 60
KEY_LIMIT, MEMORY_LIMIT = 0.150, 400
PAGES = (
    *(
        "",
        "chat",
        "find",
        "settle",
        "agreement",
        "charter",
        "datasets",
        "training",
        "compare",
        "experiments",
        "argilla",
        "models",
        "keys",
        "team",
    ),
    "review",
)
"""Every page; at last the one on which keys are pressed."""
WATCH = """() => {
  window.waits = [];
  let pressed = 0;
  const press = (event) => { if (event.key === 'Enter' && event.ctrlKey) pressed = performance.now(); };
  addEventListener('keydown', press, true);
  new MutationObserver((changes) => {
    if (!pressed || !changes.some((change) => change.target.id === 'desk-conversation')) return;
    const began = pressed;
    pressed = 0;
    requestAnimationFrame(() => requestAnimationFrame(() => window.waits.push(performance.now() - began)));
  }).observe(document.getElementById('ts-desk'), { childList: true, subtree: true });
}"""


def measure(folder: Path) -> list[Row]:
    """On SQLite, then on PostgreSQL. The stores are those that `judgement` filled, if it ran before."""
    home = folder / "desk"
    home.mkdir(parents=True)
    made = folder / "judgement.db"
    if made.exists():
        shutil.copy(made, home / "tonesmith.db")
    else:
        store = open_store(f"sqlite:///{home / 'tonesmith.db'}")
        full_store.fill(store)
        store.close()
    rows = _rows("SQLite", home, {})
    with postgresql(folder) as store:
        if store.charters.current() is None:
            full_store.fill(store)
        at_rest(store)
        url = store.engine.url.render_as_string(hide_password=False)
        return rows + _rows("PostgreSQL", folder / "desk-postgresql", {"TONESMITH_STORE_URL": url})


def _rows(database: str, home: Path, environment: dict[str, str]) -> list[Row]:
    """95th percentile of 60 key presses, and the most memory that the studio took with every page open once."""
    environment = os.environ | environment
    with studio(home, environment) as (url, process), browser_page() as page:
        command = [sys.executable, "-m", "studio", "people", "link", getpass.getuser(), "--home", str(home)]
        link = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
        page.goto(url + link)
        for name in PAGES:
            page.goto(f"{url}/{name}")
            page.wait_for_selector("h1#ts-main")
            page.wait_for_timeout(1500)
            if name == "agreement":
                page.wait_for_selector("#ts-figures table", timeout=180_000)
        waits = press_keys(page)
        memory = peak(process)
    return [
        within(f"{database}: key press to next reply on screen, p95 of {ITEMS}", percentile(waits), KEY_LIMIT),
        Row(
            f"{database}: memory of the page process at its most, every page opened",
            f"{memory:.0f} MB",
            f"limit {MEMORY_LIMIT} MB",
            memory / MEMORY_LIMIT,
            memory <= MEMORY_LIMIT,
        ),
    ]


def peak(process: psutil.Process) -> float:
    """The most memory that a process ever had, in MiB, as Linux has kept it."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (most,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(most) / 1024


def press_keys(page: Page) -> list[float]:
    """Judge 60 replies, two a second; seconds from each save key to two frames after the change."""
    page.wait_for_selector("#desk-reply")
    page.evaluate(WATCH)
    for _ in range(ITEMS):
        page.keyboard.press("a")
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(500)
    waits: list[float] = page.evaluate("window.waits")
    if len(waits) < ITEMS:
        raise RuntimeError(f"only {len(waits)} of {ITEMS} replies came on screen")
    return [wait / 1000 for wait in waits]


@contextmanager
def studio(home: Path, environment: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """A studio on `home` with scripted replies: its address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "studio", "up", "--engine", "scripted", "--home", str(home), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(400):
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.25)
        yield url, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


@contextmanager
def browser_page() -> Iterator[Page]:
    """One page of 1440 × 900 in Chromium."""
    program = os.environ.get("TONESMITH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": 1440, "height": 900})
        browser.close()
