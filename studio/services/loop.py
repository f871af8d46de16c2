"""All services in one object, and where the loop stands."""

from __future__ import annotations

from dataclasses import dataclass

from annotation.store import Store, open_store
from annotation.store.comparisons import Comparison
from annotation.types import Frozen
from studio.services.chat import ChatService
from studio.services.compare import CompareService
from studio.services.datasets import DatasetService
from studio.services.review import ReviewService
from studio.services.serving import ServingService
from studio.services.training import TrainingService
from studio.settings import Settings

ENOUGH_TO_TRAIN = 20
"""Rows from which a first run is worth starting."""


class NextStep(Frozen):
    """The one next thing to do."""

    title: str
    why: str
    action: str
    link: str


class Overview(Frozen):
    """Where the loop stands, in numbers."""

    conversations: int
    waiting: int
    reviewed: int
    datasets: int
    rows_not_in_a_version: int
    """Rows a version made now would have beyond the newest one."""
    newest_trained: bool
    """Whether a run has learned from the newest version."""
    runs: int
    running: str | None
    """Id of the run under way."""
    adapters_loaded: int
    votes: int
    tuned_won: int
    base_won: int
    last_vote: Comparison | None
    """The comparison voted on last."""

    def next_step(self) -> NextStep:
        """What to do next, in the order of the loop."""
        if self.conversations == 0:
            return NextStep(
                title="Start with a conversation",
                why="Chat with the model as a customer would, or bring in a chat log below.",
                action="Start a chat",
                link="/chat",
            )
        if self.running:
            return NextStep(
                title="A run is under way",
                why="It goes on by itself, and its adapter is loaded when it is done. You can review meanwhile.",
                action="Watch it",
                link="/training",
            )
        if self.datasets and not self.newest_trained:
            return NextStep(
                title="Train on the newest dataset",
                why="It holds what the reviewers decided. The quick preset takes a few minutes.",
                action="Go to Training",
                link="/training",
            )
        if self.adapters_loaded and not self.votes:
            return NextStep(
                title="Compare the tuned model with the base",
                why="Ask both the same and vote blind. Your votes teach the next round.",
                action="Compare",
                link="/compare",
            )
        if self.rows_not_in_a_version >= ENOUGH_TO_TRAIN:
            return NextStep(
                title="Make a dataset version",
                why=f"{self.rows_not_in_a_version:,} rows are ready that no version holds yet.",
                action="Go to Datasets",
                link="/datasets",
            )
        if self.waiting:
            return NextStep(
                title=f"{self.waiting:,} {'reply waits' if self.waiting == 1 else 'replies wait'} for your review",
                why="Say whether each is on brand, within policy and fair, and put it right where it is not.",
                action="Review",
                link="/review",
            )
        return NextStep(
            title="All caught up",
            why="Every reply is reviewed. Chat some more, or compare the models again.",
            action="Start a chat",
            link="/chat",
        )


@dataclass(frozen=True)
class Services:
    """What pages and commands receive."""

    settings: Settings
    store: Store
    serving: ServingService
    chat: ChatService
    review: ReviewService
    datasets: DatasetService
    training: TrainingService
    compare: CompareService

    def overview(self) -> Overview:
        """Where the loop stands, read anew."""
        counts = self.review.counts()
        versions = self.datasets.all()
        runs = self.training.all()
        tally = self.compare.tally()
        rows = self.datasets.preview().counts()
        kept = versions[0].rows if versions else {}
        return Overview(
            conversations=self.store.conversations.count(),
            waiting=counts["waiting"],
            reviewed=counts["reviewed"],
            datasets=len(versions),
            rows_not_in_a_version=sum(max(0, rows[name] - kept.get(name, 0)) for name in ("sft", "preference")),
            newest_trained=bool(versions)
            and any(run.dataset_id == versions[0].id and run.state.status == "succeeded" for run in runs),
            runs=len(runs),
            running=next((run.id for run in runs if run.state.status in ("queued", "running")), None),
            adapters_loaded=sum(view.loaded for view in self.serving.adapters()),
            votes=sum(tally.values()),
            tuned_won=tally["tuned"],
            base_won=tally["base"],
            last_vote=self.compare.last(),
        )

    def close(self, stop_engine: bool = False) -> None:
        """Let go of the store and the watcher; the engine goes on unless it should stop too."""
        self.serving.close(stop_engine)
        self.store.close()


def open_services(settings: Settings) -> Services:
    """Open the store and lay out the services; starts nothing."""
    store = open_store(settings.database)
    serving = ServingService(settings)
    person = settings.person

    def charter_version() -> int:
        charter = store.charters.current()
        return charter.version if charter else 0

    datasets = DatasetService(store, settings.datasets, person)
    datasets.recover()
    return Services(
        settings=settings,
        store=store,
        serving=serving,
        chat=ChatService(store, serving.model, serving.identify, person, charter_version),
        review=ReviewService(store, person),
        datasets=datasets,
        training=TrainingService(store, settings, serving),
        compare=CompareService(store, serving.model, serving.identify, person),
    )
