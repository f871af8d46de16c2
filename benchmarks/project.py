"""A demo project with a dataset version, for the measures that train or serve."""

from __future__ import annotations

import time
from pathlib import Path

from annotation.types import DatasetVersion
from studio.demo_project import seed
from studio.services import Services, open_services
from studio.settings import Settings

WAIT_SECONDS = 900.0


def demo(home: Path, **options: object) -> tuple[Services, DatasetVersion]:
    """Services over a seeded project with its first version; the base model is prepared."""
    services = open_services(Settings(home=home, **options))  # type: ignore[arg-type]
    seed(services.store)
    services.serving.prepare_base()
    return services, services.datasets.make("bench")


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
