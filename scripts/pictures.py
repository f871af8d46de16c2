"""Take the pictures that the docs show: `make shots`; with a folder as its argument, of every page, to look at there.

Uses the demo project with scripted replies, so it needs no engine.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

TARGET = Path(__file__).parent.parent / "docs" / "pictures"
SIZES = {"wide": (1440, 900), "narrow": (390, 844)}
SHOWN = ("home", "chat", "review", "datasets", "training", "compare")
PAGES = (*SHOWN, "find", "settle", "agreement", "charter", "experiments", "models", "keys", "argilla", "team")


def main() -> None:
    """Start a studio in a folder of its own and photograph each page, wide and narrow."""
    target, pages = (Path(sys.argv[1]), PAGES) if len(sys.argv) > 1 else (TARGET, SHOWN)
    target.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "studio", "up", "--demo", "--engine", "scripted", "--home", home]
        studio = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL)
        try:
            wait(f"http://127.0.0.1:{port}/health")
            photograph(f"http://127.0.0.1:{port}", home, target, pages)
        finally:
            studio.send_signal(signal.SIGINT)
            studio.wait(timeout=30)


def wait(url: str) -> None:
    """Until the studio answers."""
    for _ in range(240):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.25)
    raise SystemExit("the studio did not start")


def sign_in_path(home: str) -> str:
    """A link that signs in whoever started the studio."""
    command = [sys.executable, "-m", "studio", "people", "link", getpass.getuser(), "--home", home]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def photograph(url: str, home: str, target: Path, pages: Sequence[str]) -> None:
    """Each of the pages in every size."""
    program = os.environ.get("TONESMITH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for size, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(url + sign_in_path(home))
            for name in pages:
                page.goto(f"{url}/{'' if name == 'home' else name}")
                page.wait_for_selector("h1#ts-main")
                page.wait_for_timeout(1500)
                if name == "review":
                    at_work(page)
                page.screenshot(path=target / f"{name}-{size}.png")
        browser.close()


def at_work(page: Page) -> None:
    """The review desk as it looks in use."""
    page.wait_for_selector("#desk-reply")
    for key in ("2", "4", "7"):
        page.keyboard.press(key)
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("Hi there, thanks for asking Juniper! Which flight is it, and where would you like to sit?")
    page.locator("#desk-corrected").blur()
    page.wait_for_selector("#desk-difference ins")
    page.wait_for_timeout(500)


if __name__ == "__main__":
    main()
