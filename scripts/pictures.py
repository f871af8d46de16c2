"""Take the pictures of the page: `make shots`. Uses the demo project with scripted replies, so it needs no engine."""

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
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

TARGET = Path(__file__).parent.parent / "docs" / "pictures"
SIZES = {"wide": (1440, 900), "narrow": (390, 844)}
PAGES = (
    "home", "chat", "review", "find", "settle", "agreement", "charter", "datasets", "training", "compare", "models",
    "keys", "team",
)  # fmt: skip


def main() -> None:
    """Start a studio in a folder of its own and photograph each page, wide and narrow."""
    TARGET.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "studio", "up", "--demo", "--engine", "scripted", "--home", home]
        studio = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL)
        try:
            wait(f"http://127.0.0.1:{port}/health")
            photograph(f"http://127.0.0.1:{port}", home)
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


def photograph(url: str, home: str) -> None:
    """Every page in every size."""
    program = os.environ.get("TONESMITH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for size, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(url + sign_in_path(home))
            for name in PAGES:
                page.goto(f"{url}/{'' if name == 'home' else name}")
                page.wait_for_selector("h1#ts-main")
                page.wait_for_timeout(1500)
                if name == "review":
                    at_work(page)
                page.screenshot(path=TARGET / f"{name}-{size}.png")
        browser.close()


def at_work(page: Page) -> None:
    """The review desk as it looks in use."""
    page.wait_for_selector("#desk-reply")
    for key in ("2", "4", "7"):
        page.keyboard.press(key)
    box = page.locator("#desk-corrected")
    box.fill("Hi there, thanks for asking Juniper! Which flight is it, and where would you like to sit?")
    box.blur()
    page.wait_for_selector("#desk-difference ins")
    page.wait_for_timeout(500)


if __name__ == "__main__":
    main()
