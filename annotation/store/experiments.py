"""Experiments, their pairs and the ballots about them. A design never changes; a ballot is never taken back."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from annotation.errors import Conflict, NotFound
from annotation.experiments import BallotForm, CastBallot, Design, Drawn, Experiment, Pair, Planned
from annotation.near import opening
from annotation.store.part import Part, Writer, fields, new_id
from annotation.store.tables import ballots, experiment_ends, experiment_looks, experiment_pairs, experiments
from annotation.types import utc_now


class Experiments(Part):
    """Keep experiments, take ballots."""

    def __init__(self, engine: sa.Engine, writer: Writer) -> None:
        super().__init__(engine, writer)
        # A design never changes, and every vote asks for it: read each once.
        self._known: dict[str, Design] = {}

    def add(self, design: Design, author: str) -> Experiment:
        """Freeze a design. Raises Conflict for a name that is taken."""
        row = {
            "id": new_id(),
            "name": design.name,
            "design": design.model_dump(mode="json"),
            "sha256": design.sha256(),
            "author": author,
            "made_at": utc_now(),
        }
        try:
            with self._writer.begin() as db:
                db.execute(experiments.insert().values(row))
        except sa.exc.IntegrityError as error:
            raise Conflict(
                f"There is an experiment called '{design.name}' already.", do="Give it another name."
            ) from error
        return self.get(str(row["id"]))

    def get(self, experiment_id: str) -> Experiment:
        """One experiment. Raises NotFound."""
        with self._engine.connect() as db:
            row = db.execute(_WITH_END.where(experiments.c.id == experiment_id)).mappings().first()
            if row is None:
                raise NotFound("That experiment is not here.", do="Choose one from the list.")
            return self._experiment(db, row)

    def all(self) -> list[Experiment]:
        """All experiments, newest first."""
        with self._engine.connect() as db:
            rows = db.execute(_WITH_END.order_by(experiments.c.seq.desc())).mappings().all()
            return [self._experiment(db, row) for row in rows]

    def openings(self) -> list[str]:
        """What all experiments ask, by the prompts' openings: nothing that is like it may be learned from."""
        return sorted({opening(prompt) for one in self.all() for prompt in one.design.prompts})

    def end(self, experiment_id: str, author: str, reason: str) -> Experiment:
        """No more ballots, and the sides may be named. Ending it again changes nothing. Raises NotFound."""
        self.get(experiment_id)
        row = {"id": new_id(), "experiment_id": experiment_id, "author": author, "reason": reason, "made_at": utc_now()}
        try:
            with self._writer.begin() as db:
                db.execute(sa.select(experiments.c.id).where(experiments.c.id == experiment_id).with_for_update())
                db.execute(experiment_ends.insert().values(row))
        except sa.exc.IntegrityError:  # somebody was quicker
            pass
        return self.get(experiment_id)

    def look(self, experiment_id: str, author: str) -> None:
        """Note that somebody is about to see its figures: from now on they can't judge in it. Once is enough."""
        row = {"id": new_id(), "experiment_id": experiment_id, "author": author, "made_at": utc_now()}
        try:
            with self._writer.begin() as db:
                # Held until it is noted, so that no ballot of theirs can come between.
                db.execute(sa.select(experiments.c.id).where(experiments.c.id == experiment_id).with_for_update())
                db.execute(experiment_looks.insert().values(row))
        except sa.exc.IntegrityError:  # it was noted before
            pass

    def looked(self, experiment_id: str, author: str) -> bool:
        """Whether somebody saw its figures before its end."""
        with self._engine.connect() as db:
            return db.scalar(_LOOKED, {"experiment_id": experiment_id, "author": author}) is not None

    def made(self, experiment_id: str) -> set[int]:
        """Numbers of the planned pairs whose replies are there."""
        query = sa.select(experiment_pairs.c.number).where(experiment_pairs.c.experiment_id == experiment_id)
        with self._engine.connect() as db:
            return set(db.scalars(query))

    def keep(self, experiment_id: str, planned: Planned, left: Drawn, right: Drawn) -> bool:
        """Keep a pair; False if it is there already, and then that one stays, or if the experiment has ended."""
        row = {
            "id": new_id(),
            "experiment_id": experiment_id,
            "number": planned.number,
            "planned": planned.model_dump(mode="json"),
            "left": left.model_dump(mode="json"),
            "right": right.model_dump(mode="json"),
            "made_at": utc_now(),
        }
        try:
            with self._writer.begin() as db:
                # Held until the pair is in: what was there at the end is all there will be.
                db.execute(sa.select(experiments.c.id).where(experiments.c.id == experiment_id).with_for_update())
                if db.scalar(_END, {"experiment_id": experiment_id}):
                    return False
                db.execute(experiment_pairs.insert().values(row))
        except sa.exc.IntegrityError:
            return False
        return True

    def pairs(self, experiment_id: str) -> list[Pair]:
        """All pairs whose replies are there, by number."""
        query = sa.select(experiment_pairs).where(experiment_pairs.c.experiment_id == experiment_id)
        with self._engine.connect() as db:
            return [_pair(row) for row in db.execute(query.order_by(experiment_pairs.c.number)).mappings()]

    def of_pair(self, pair_id: str) -> tuple[Experiment, Pair]:
        """A pair, and the experiment it is of. Raises NotFound."""
        with self._engine.connect() as db:
            row = db.execute(sa.select(experiment_pairs).where(experiment_pairs.c.id == pair_id)).mappings().first()
        if row is None:
            raise NotFound("That pair is not here.", do="Go on to the next one.")
        return self.get(row["experiment_id"]), _pair(row)

    def ballot(self, pair_id: str, voter: str) -> CastBallot | None:
        """What somebody said of a pair, None if nothing yet."""
        query = sa.select(ballots).where(ballots.c.pair_id == pair_id, ballots.c.voter == voter)
        with self._engine.connect() as db:
            row = db.execute(query).mappings().first()
        return CastBallot(**fields(row)) if row else None

    def cast(self, pair_id: str, voter: str, form: BallotForm) -> CastBallot:
        """Take a ballot. Raises NotFound, and Conflict for a second one by the same person, after the end, and by
        somebody who has seen the figures.
        """
        row = {
            "id": new_id(),
            "pair_id": pair_id,
            "voter": voter,
            "form": form.model_dump(mode="json"),
            "made_at": utc_now(),
        }
        with self._writer.begin() as db:
            # Held until the ballot is in, so that no end can come between.
            experiment_id = db.scalar(_OF_PAIR, {"pair_id": pair_id})
            if experiment_id is None:
                raise NotFound("That pair is not here.", do="Go on to the next one.")
            if db.scalar(_END, {"experiment_id": experiment_id}):
                raise Conflict("This experiment has ended, and its sides have been named.", do="Choose another one.")
            if db.scalar(_LOOKED, {"experiment_id": experiment_id, "author": voter}):
                raise Conflict(
                    "You have seen the figures of this experiment, so you can't judge in it any more.",
                    do="Leave it to the others, or choose another one.",
                )
            try:
                db.execute(ballots.insert().values(row))
            except sa.exc.IntegrityError as error:
                raise Conflict("You have judged this pair already.", do="Go on to the next one.") from error
        return CastBallot.model_validate({**row, "form": form})

    def ballots(self, experiment_id: str) -> list[CastBallot]:
        """All ballots of an experiment, oldest first."""
        query = sa.select(ballots).join(experiment_pairs, experiment_pairs.c.id == ballots.c.pair_id)
        query = query.where(experiment_pairs.c.experiment_id == experiment_id).order_by(ballots.c.seq)
        with self._engine.connect() as db:
            return [CastBallot(**fields(row)) for row in db.execute(query).mappings()]

    def _experiment(self, db: sa.Connection, row: sa.RowMapping) -> Experiment:
        if row["id"] not in self._known:
            body = db.scalar(sa.select(experiments.c.design).where(experiments.c.id == row["id"]))
            self._known[row["id"]] = Design.model_validate(body)
        values: dict[str, Any] = dict(row) | {"design": self._known[row["id"]], "reason": row["reason"] or ""}
        return Experiment(**values)


_WITH_END = sa.select(
    *(experiments.c[name] for name in ("id", "sha256", "author", "made_at")),
    experiment_ends.c.made_at.label("ended_at"),
    experiment_ends.c.author.label("ended_by"),
    experiment_ends.c.reason,
).outerjoin(experiment_ends, experiment_ends.c.experiment_id == experiments.c.id)
_OF_PAIR = (
    sa.select(experiments.c.id)
    .join(experiment_pairs, experiment_pairs.c.experiment_id == experiments.c.id)
    .where(experiment_pairs.c.id == sa.bindparam("pair_id"))
    .with_for_update(of=experiments)
)
_END = sa.select(experiment_ends.c.author).where(experiment_ends.c.experiment_id == sa.bindparam("experiment_id"))
_LOOKED = sa.select(experiment_looks.c.id).where(
    experiment_looks.c.experiment_id == sa.bindparam("experiment_id"),
    experiment_looks.c.author == sa.bindparam("author"),
)


def _pair(row: sa.RowMapping) -> Pair:
    return Pair(id=row["id"], planned=row["planned"], left=row["left"], right=row["right"])
