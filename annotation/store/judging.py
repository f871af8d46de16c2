"""Judges that were asked for on experiments, and their verdicts. Neither ever changes, and none is taken back."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from annotation.errors import NotFound
from annotation.judging import AskedJudge, Judge, JudgeVerdict, Opinion, Order
from annotation.store.part import Part, fields, new_id
from annotation.store.tables import experiment_pairs, judge_verdicts, judges
from annotation.types import Provenance, utc_now


class Judging(Part):
    """Keep judges and what they say."""

    def ask(self, experiment_id: str, judge: Judge, author: str) -> AskedJudge:
        """Freeze a judge for an experiment; the very same one again is the one that is there."""
        row = {
            "id": new_id(),
            "experiment_id": experiment_id,
            "judge": judge.model_dump(mode="json"),
            "sha256": judge.sha256(),
            "author": author,
            "made_at": utc_now(),
        }
        try:
            with self._writer.begin() as db:
                db.execute(judges.insert().values(row))
        except sa.exc.IntegrityError:  # it was asked for before, or somebody was quicker
            pass
        return next(one for one in self.judges(experiment_id) if one.sha256 == row["sha256"])

    def get(self, judge_id: str) -> AskedJudge:
        """One judge. Raises NotFound."""
        found = next(self._read(judges.c.id == judge_id), None)
        if found is None:
            raise NotFound("That judge is not here.", do="Choose one from the list.")
        return found

    def judges(self, experiment_id: str | None = None) -> list[AskedJudge]:
        """All judges of an experiment, or of all, oldest first."""
        return list(self._read(judges.c.experiment_id == experiment_id if experiment_id else sa.true()))

    def keep(
        self,
        pair_id: str,
        judge_id: str,
        order: Order,
        answer: str,
        opinion: Opinion | None,
        asked_sha256: str,
        provenance: Provenance,
    ) -> bool:
        """Keep an answer; False if there is one already for this pair, judge and order, and then that one stays."""
        row = {
            "id": new_id(),
            "pair_id": pair_id,
            "judge_id": judge_id,
            "order": order,
            "answer": answer,
            "opinion": opinion.model_dump(mode="json") if opinion else None,
            "asked_sha256": asked_sha256,
            "provenance": provenance.model_dump(mode="json"),
            "made_at": utc_now(),
        }
        try:
            with self._writer.begin() as db:
                db.execute(judge_verdicts.insert().values(row))
        except sa.exc.IntegrityError:
            return False
        return True

    def verdicts(self, experiment_id: str) -> list[JudgeVerdict]:
        """What all judges of an experiment said, oldest first."""
        query = sa.select(judge_verdicts).join(experiment_pairs, experiment_pairs.c.id == judge_verdicts.c.pair_id)
        query = query.where(experiment_pairs.c.experiment_id == experiment_id).order_by(judge_verdicts.c.seq)
        with self._engine.connect() as db:
            return [JudgeVerdict(**fields(row)) for row in db.execute(query).mappings()]

    def counts(self, experiment_id: str) -> dict[str, tuple[int, int]]:
        """(answers, those that could not be read) of each judge that has answered."""
        answers, read = sa.func.count(), sa.func.count(judge_verdicts.c.opinion)
        query = sa.select(judge_verdicts.c.judge_id, answers, answers - read).join(
            judges, judges.c.id == judge_verdicts.c.judge_id
        )
        query = query.where(judges.c.experiment_id == experiment_id).group_by(judge_verdicts.c.judge_id)
        with self._engine.connect() as db:
            return {judge_id: (number, unread) for judge_id, number, unread in db.execute(query)}

    def said(self, judge_id: str) -> set[tuple[str, Order]]:
        """(pair, order) that a judge has answered, read or not."""
        query = sa.select(judge_verdicts.c.pair_id, judge_verdicts.c.order).where(judge_verdicts.c.judge_id == judge_id)
        with self._engine.connect() as db:
            return {(pair_id, order) for pair_id, order in db.execute(query)}

    def _read(self, where: sa.ColumnElement[bool]) -> Iterator[AskedJudge]:
        with self._engine.connect() as db:
            rows = db.execute(sa.select(judges).where(where).order_by(judges.c.seq)).mappings().all()
        for row in rows:
            yield AskedJudge(**fields(row))
