"""Open the store: make the engine, back up, migrate, hand out one object with a part for each concern."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from annotation.errors import UserError
from annotation.store import postgres, sqlite
from annotation.store.aliases import Aliases
from annotation.store.argilla import ArgillaState
from annotation.store.batches import Batches
from annotation.store.charters import Charters
from annotation.store.comparisons import Comparisons
from annotation.store.conversations import Conversations
from annotation.store.datasets import Datasets
from annotation.store.experiments import Experiments
from annotation.store.figures import Figures
from annotation.store.halts import Halts
from annotation.store.helpers import Helpers
from annotation.store.items import Items
from annotation.store.judging import Judging
from annotation.store.keys import Keys
from annotation.store.part import Writer
from annotation.store.people import People
from annotation.store.reviews import Reviews
from annotation.store.search import Search
from annotation.store.tasks import Tasks
from annotation.types import utc_now

BACKUPS_KEPT = 5


@dataclass(frozen=True)
class Store:
    """Everything that people have said, judged and voted, each concern in its own part."""

    engine: sa.Engine
    charters: Charters
    conversations: Conversations
    reviews: Reviews
    tasks: Tasks
    search: Search
    batches: Batches
    helpers: Helpers
    items: Items
    figures: Figures
    people: People
    keys: Keys
    datasets: Datasets
    comparisons: Comparisons
    experiments: Experiments
    judging: Judging
    halts: Halts
    aliases: Aliases
    argilla: ArgillaState

    def close(self) -> None:
        """Give all connections back; SQLite folds its write-ahead log into the file."""
        self.engine.dispose()


def open_store(url: str) -> Store:
    """Open the database at `url`, bringing its tables up to date first; a SQLite file is backed up before that.

    Raises UserError if the database can't be reached, or was made by a newer Tonesmith.
    """
    engine = _engine(url)
    try:
        _migrate(engine)
    except sa.exc.DBAPIError as error:
        raise UserError(
            f"The database at {sa.make_url(url).render_as_string()} could not be opened: {error.orig}.",
            "A SQLite file in a folder you can write to, or a PostgreSQL server that answers.",
            "Check `--store-url` (or TONESMITH_STORE_URL) and the folder's permissions and free space.",
        ) from error
    writer = Writer(engine)
    return Store(
        engine=engine,
        charters=Charters(engine, writer),
        conversations=Conversations(engine, writer),
        reviews=Reviews(engine, writer),
        tasks=Tasks(engine, writer),
        search=Search(engine, writer),
        batches=Batches(engine, writer),
        helpers=Helpers(engine, writer),
        items=Items(engine, writer),
        figures=Figures(engine, writer),
        people=People(engine, writer),
        keys=Keys(engine, writer),
        datasets=Datasets(engine, writer),
        comparisons=Comparisons(engine, writer),
        experiments=Experiments(engine, writer),
        judging=Judging(engine, writer),
        halts=Halts(engine, writer),
        aliases=Aliases(engine, writer),
        argilla=ArgillaState(engine, writer),
    )


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.drivername == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            parsed = parsed.set(drivername=sqlite.DRIVER)
        engine = sa.create_engine(parsed)
    except OSError as error:
        raise UserError(f"The folder of {url} can't be made: {error.strerror}.", do="Choose another place.") from error
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise UserError(
            f"'{url}' is not a database address Tonesmith can use: {error}.",
            "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME (with `pip install 'tonesmith[postgres]'`).",
        ) from error
    if engine.dialect.name == "postgresql":
        postgres.ask_after_a_rest(engine)
    return engine


def _alembic(engine: sa.Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    return config


def _migrate(engine: sa.Engine) -> None:
    config = _alembic(engine)
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    newest = scripts.get_current_head()
    if current == newest:
        return
    if current is not None:
        if current not in {script.revision for script in scripts.walk_revisions()}:
            raise UserError(
                f"The store is at schema {current}, which this Tonesmith does not know.",
                f"Schema {newest} or an older one.",
                "It was opened by a newer Tonesmith: upgrade this one, or point it at another folder.",
            )
        _backup(engine, current)
    command.upgrade(config, "head")


def _backup(engine: sa.Engine, revision: str) -> Path | None:
    """Copy a SQLite file beside itself before its tables change; PostgreSQL's owners have their own backups."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return None
    file = Path(engine.url.database)
    backup = file.with_name(f"{file.stem}.before-{utc_now():%Y%m%dT%H%M%S}-{revision}.db")
    with sqlite3.connect(file) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    older = sorted(path for path in file.parent.iterdir() if re.match(rf"{re.escape(file.stem)}\.before-\d", path.name))
    for path in older[:-BACKUPS_KEPT]:
        path.unlink()
    return backup
