"""Adapters and their lineage: one immutable folder each."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import ValidationError

from annotation.errors import NotFound
from annotation.files import sha256_of, sync, write_whole
from annotation.types import utc_now
from training.types import Adapter, Scored, SftConfig
from training.weights import ADAPTER_FILE, digest

WEIGHTS = ADAPTER_FILE
LINEAGE = "lineage.json"
FILES = (WEIGHTS, "adapter_config.json")


def name_of(made: Path, config: SftConfig) -> str:
    """The name the adapter in folder `made` will be published under."""
    return f"{config.run_name}-{sha256_of(made / WEIGHTS)[:8]}"


def publish(
    made: Path, config: SftConfig, run_id: str, versions: dict[str, str], scored: tuple[Scored, ...] = ()
) -> Adapter:
    """Give the adapter in folder `made` its name and its place; doing it twice ends in the same one.

    Only the files that vLLM reads are taken. The folder appears complete or not at all.
    """
    weights = sha256_of(made / WEIGHTS)
    name = name_of(made, config)
    target = config.adapters_dir / name
    if (target / LINEAGE).is_file():
        return read(target)
    aside = config.adapters_dir / f".making-{name}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for file in FILES:
        shutil.copyfile(made / file, aside / file)  # not its mode: an engine run by somebody else reads it too
        sync(aside / file)
    adapter = Adapter(
        name=name,
        path=target,
        base_name=config.base_name,
        base_model=config.base_model,
        base_revision=config.base_revision,
        rank=config.lora.rank,
        run_id=run_id,
        dataset_id=config.dataset_id,
        dataset_sha256=config.dataset_sha256,
        charter_version=config.charter_version,
        weights_sha256=weights,
        created_at=utc_now(),
        config=config,
        versions=versions,
        scored=scored,
        base_sha256=digest(Path(config.base_model)) if Path(config.base_model).is_dir() else None,
    )
    write_whole(aside / LINEAGE, adapter.model_dump_json(indent=2))
    aside.rename(target)
    sync(config.adapters_dir)
    return adapter


def read(folder: Path) -> Adapter:
    """The adapter in `folder`, wherever that was moved to. Raises NotFound if it is none of ours."""
    try:
        adapter = Adapter.model_validate_json((folder / LINEAGE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError) as error:
        raise NotFound(
            f"There is no adapter '{folder.name}'.",
            "One that a run here made.",
            "`tonesmith adapters` lists them.",
        ) from error
    return adapter.model_copy(update={"path": folder})


def get(root: Path, name: str) -> Adapter:
    """One adapter by name. Raises NotFound."""
    return read(root / (name if name and Path(name).name == name else "nameless"))


def all_adapters(root: Path) -> list[Adapter]:
    """All adapters under `root`, newest first; a folder that is none, or is broken, hides no other."""
    found = []
    for lineage in root.glob(f"[!.]*/{LINEAGE}"):
        try:
            found.append(read(lineage.parent))
        except NotFound:
            continue
    return sorted(found, key=lambda adapter: adapter.created_at, reverse=True)
