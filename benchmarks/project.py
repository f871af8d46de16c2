"""A demo project with a dataset version, for the measures that train or serve."""

from __future__ import annotations

import time
from pathlib import Path

from annotation.types import DatasetVersion
from studio.demo_project import seed
from studio.services import Services, open_services
from studio.settings import Settings
from training import launch
from training.rundir import RunDir

WAIT_SECONDS = 900.0


def demo(home: Path, **options: object) -> tuple[Services, DatasetVersion]:
    """Services over a seeded project with its first version; the base model is prepared."""
    services = open_services(Settings(home=home, **options))  # type: ignore[arg-type]
    seed(services.store)
    services.serving.prepare_base()
    return services, services.datasets.make("bench")


def start_run(services: Services, version: DatasetVersion, name: str, steps: int) -> str:
    """Start a run of the quick preset, cut to `steps`; returns its id."""
    quick = next(preset for preset in services.training.presets() if preset.name == "quick")
    shorter = quick.model_copy(update={"recipe": quick.recipe.model_copy(update={"max_steps": steps})})
    config = shorter.config(
        run_name=name,
        dataset_dir=services.datasets.folder(version),
        dataset_id=version.id,
        dataset_sha256=version.sha256,
        base_model=str(services.serving.base_path()),
        base_name=services.settings.base_name,
        adapters_dir=services.settings.adapters,
    )
    run = RunDir.create(services.settings.runs / name, config)
    launch.start(run)
    return name


def wait_for_run(services: Services, run_id: str, every: float = 0.05) -> None:
    """Until the run has succeeded; raises RuntimeError if it does not."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        state = services.training.view(run_id).state
        if state.status == "succeeded":
            return
        if state.status in ("failed", "cancelled"):
            raise RuntimeError(state.message)
        time.sleep(every)
    raise RuntimeError("the run did not end in time")
