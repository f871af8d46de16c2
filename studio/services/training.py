"""Runs: start, watch, cancel, go on. The truth about a run is its folder; nothing about it is kept in memory."""

from __future__ import annotations

from pathlib import Path

from annotation.errors import NotFound, UserError
from annotation.people import Person
from annotation.store import Store
from annotation.types import DatasetVersion, Frozen, utc_now
from studio.services.serving import ServingService
from studio.settings import Settings
from training import launch
from training.preflight import check
from training.presets import Preset, load_presets
from training.rundir import RunDir
from training.types import Metric, RunState, SftConfig


class RunView(Frozen):
    """One run as it stands on disk."""

    id: str
    dataset_id: str
    about: str
    """Version, base model and preset, for people."""
    state: RunState
    metrics: tuple[Metric, ...]
    """One a step, oldest first."""
    can_resume: bool


class TrainingService:
    """What the Training page and `tonesmith train` call."""

    def __init__(self, store: Store, settings: Settings, serving: ServingService, who: Person) -> None:
        self._who = who
        self._store = store
        self._settings = settings
        self._serving = serving

    def presets(self) -> list[Preset]:
        """The shipped presets, quickest first."""
        self._who.must("look")
        return load_presets()

    def all(self) -> list[RunView]:
        """All runs, newest first."""
        self._who.must("look")
        # `config.json` is written once, when the run is made.
        configs = sorted(self._settings.runs.glob("*/config.json"), key=lambda path: path.stat().st_mtime_ns)
        return [self.view(path.parent.name) for path in reversed(configs)]

    def view(self, run_id: str) -> RunView:
        """One run, read anew. Raises NotFound."""
        self._who.must("look")
        run = self._run(run_id)
        config, state = run.read_config(), run.read_state()
        about = f"{config.dataset_id} · {config.base_name} · {config.preset}"
        resumable = state.status in ("failed", "cancelled") and run.last_checkpoint() is not None
        metrics = tuple(run.read_metrics())
        return RunView(
            id=run_id, dataset_id=config.dataset_id, about=about, state=state, metrics=metrics, can_resume=resumable
        )

    def start(
        self,
        version_id: str | None,
        preset_name: str,
        base_model: Path | None = None,
        max_steps: int | None = None,
    ) -> str:
        """Check everything, then start a run in a process of its own; returns its id. It ends after `max_steps`, where
        these are fewer than the preset's.

        Raises UserError for whatever would go wrong: no version, no rows, changed files, no model, no disk space,
        another run under way.
        """
        self._who.must("curate")
        if not version_id:
            raise UserError("There is no dataset version to learn from.", do="Make one on the Datasets page first.")
        busy = [view.id for view in self.all() if view.state.status in ("queued", "running")]
        if busy:
            raise UserError(
                f"The run {busy[0]} is still going.",
                "One run at a time on this machine.",
                "Wait for it, or cancel it on the Training page.",
            )
        version = self._store.datasets.get(version_id)
        base = base_model or self._serving.base_path()
        config = self._config(version, self._preset(preset_name), base)
        if max_steps is not None:
            config = config.model_copy(update={"max_steps": min(max_steps, config.max_steps or max_steps)})
        check(config)
        run = RunDir.create(self._settings.runs / config.run_name, config)
        launch.start(run)
        return run.path.name

    def cancel(self, run_id: str) -> RunState:
        """Stop a run and all it started; what it saved so far stays."""
        self._who.must("curate")
        run = self._run(run_id)
        launch.cancel(run)
        return run.read_state()

    def resume(self, run_id: str) -> None:
        """Go on from the last checkpoint. Raises UserError if there is none, or the run is going."""
        self._who.must("curate")
        launch.resume(self._run(run_id))

    def _run(self, run_id: str) -> RunDir:
        path = self._settings.runs / run_id
        if not run_id or Path(run_id).name != run_id or not (path / "config.json").is_file():
            raise NotFound(f"There is no run '{run_id}'.", do="`tonesmith runs` lists them.")
        return RunDir(path)

    def _preset(self, name: str) -> Preset:
        known = {preset.name: preset for preset in self.presets()}
        if name not in known:
            raise UserError(f"There is no preset '{name}'.", f"One of {', '.join(known)}.")
        return known[name]

    def _config(self, version: DatasetVersion, preset: Preset, base: Path) -> SftConfig:
        run_name = f"v{version.number}-{preset.name}-{utc_now():%m%d-%H%M%S}"
        return preset.config(
            run_name=run_name,
            dataset_dir=self._settings.datasets / version.id,
            dataset_id=version.id,
            dataset_sha256=version.sha256,
            base_model=str(base),
            base_name=self._settings.base_name,
            base_revision=self._settings.base_revision,
            charter_version=version.charter_version,
            adapters_dir=self._settings.adapters,
        )
