"""All services in one object, and where the loop stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from annotation.errors import UserError
from annotation.judging import Judge
from annotation.people import Person
from annotation.store import Store, open_store
from annotation.store.comparisons import Comparison
from annotation.types import ChatModel, Frozen
from serving.client import Client
from studio.services.api import ApiService
from studio.services.argilla import ArgillaService
from studio.services.chat import ChatService
from studio.services.compare import CompareService
from studio.services.datasets import DatasetService
from studio.services.drawing import ExperimentRunner
from studio.services.experiments import ExperimentService
from studio.services.find import FindService
from studio.services.judging import JudgeRunner, JudgeService, Outside
from studio.services.keys import KeyService
from studio.services.promotion import PromotionService, aliased
from studio.services.quality import QualityService
from studio.services.review import ReviewService
from studio.services.rules import CharterService
from studio.services.serving import ServingService
from studio.services.settle import SettleService
from studio.services.suggest import SuggestBatch, SuggestService
from studio.services.team import TeamService
from studio.services.training import TrainingService
from studio.settings import Settings

ENOUGH_TO_TRAIN = 20
"""Judged replies from which a first run is worth starting."""


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
    disputed: int
    judged_since: int
    """Reviews and decided votes since the newest version was made."""
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
        if self.judged_since >= ENOUGH_TO_TRAIN:
            return NextStep(
                title="Make a dataset version",
                why=f"{self.judged_since:,} replies and comparisons were judged that no version holds yet.",
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
    """What pages and commands receive: everything in the name of one person."""

    settings: Settings
    store: Store
    serving: ServingService
    argilla: ArgillaService
    suggesting: SuggestBatch
    drawing: ExperimentRunner
    judge_runner: JudgeRunner
    who: Person
    chat: ChatService
    review: ReviewService
    find: FindService
    settle: SettleService
    quality: QualityService
    suggest: SuggestService
    charter: CharterService
    team: TeamService
    datasets: DatasetService
    training: TrainingService
    compare: CompareService
    promotion: PromotionService
    experiments: ExperimentService
    judging: JudgeService
    keys: KeyService
    api: ApiService

    def of(self, who: Person) -> Services:
        """The same in somebody else's name."""
        return replace(self, who=who, **_named(self.settings, self.store, self.serving, who))

    def overview(self) -> Overview:
        """Where the loop stands, read anew. Counts only: it is asked for every few seconds."""
        counts = self.review.counts()
        versions = self.datasets.all()
        runs = self.training.all()
        tally = self.compare.tally()
        since = versions[0].made_at if versions else None
        return Overview(
            conversations=self.store.conversations.count(),
            waiting=counts["waiting"],
            reviewed=counts["reviewed"],
            disputed=counts["disputed"],
            datasets=len(versions),
            judged_since=self.store.reviews.acts_since(since) + self.store.comparisons.decided(since),
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
        self.argilla.close()
        self.suggesting.close()
        self.drawing.close()
        self.judge_runner.close()
        self.store.close()


def open_services(settings: Settings) -> Services:
    """Open the store and lay out the services in the name of the person at this machine, who may do everything here
    since the files are theirs; starts nothing.
    """
    store = open_store(settings.database)
    serving = ServingService(settings, lambda: aliased(store))
    who = Person(name=settings.person, role="admin")
    services = Services(
        settings=settings,
        store=store,
        serving=serving,
        argilla=ArgillaService(store, settings),
        suggesting=SuggestBatch(store, serving.model),
        drawing=ExperimentRunner(
            store, partial(serving.model, pieces=False), settings.home / "drawing.lock", serving.unwatched_at_once
        ),
        judge_runner=JudgeRunner(
            store,
            _judges(settings, serving),
            serving.identify,
            settings.home / "judging.lock",
            serving.unwatched_at_once,
        ),
        who=who,
        **_named(settings, store, serving, who),
    )
    services.datasets.recover()
    return services


def _outside(settings: Settings) -> Outside | None:
    if settings.judge_url and settings.judge_model:
        return Outside(url=settings.judge_url, model=settings.judge_model)
    return None


def _judges(settings: Settings, serving: ServingService) -> Callable[[Judge], ChatModel]:
    """Who answers for a judge: our engine, or the other server while it is the one that was set."""

    def model(judge: Judge) -> ChatModel:
        if not judge.elsewhere:
            return serving.model(pieces=False)
        if judge.elsewhere != settings.judge_url:  # and the key is for that one alone
            raise UserError(
                f"{judge.name} judges at {judge.elsewhere}, which is not set any more.",
                do="Set TONESMITH_JUDGE_URL to that address.",
            )
        return Client(judge.elsewhere, settings.judge_key, pieces=False, key_setting="TONESMITH_JUDGE_KEY")

    return model


def _named(settings: Settings, store: Store, serving: ServingService, who: Person) -> dict[str, Any]:
    def charter_version() -> int:
        charter = store.charters.current()
        return charter.version if charter else 0

    promotion = PromotionService(store, serving, who)
    return {
        "promotion": promotion,
        "chat": ChatService(store, serving.model, serving.identify, who, charter_version, promotion.resolve),
        "review": ReviewService(store, who, serving.model, serving.identify),
        "find": FindService(store, who),
        "settle": SettleService(store, who),
        "quality": QualityService(store, who),
        "suggest": SuggestService(store, who, serving.model),
        "charter": CharterService(store, who),
        "team": TeamService(store, who),
        "datasets": DatasetService(store, settings.datasets, who),
        "training": TrainingService(store, settings, serving, who),
        "compare": CompareService(store, serving.model, serving.identify, who, sound=serving.must_be_sound),
        "experiments": ExperimentService(store, settings.datasets, serving.identify, who, sound=serving.must_be_sound),
        "judging": JudgeService(store, serving.identify, serving.choices, _outside(settings), who),
        "keys": KeyService(store, who),
        "api": ApiService(serving, promotion, who),
    }
