"""Cards of dataset versions; their rows are files, written by `annotation.versions`."""

from __future__ import annotations

import sqlalchemy as sa

from annotation.errors import NotFound
from annotation.store.part import Part
from annotation.store.tables import dataset_versions
from annotation.types import DatasetVersion


class Datasets(Part):
    """Read and add the cards."""

    def add(self, version: DatasetVersion) -> None:
        """Keep a card; the same card again changes nothing."""
        with self._writer.begin() as db:
            if db.scalar(sa.select(dataset_versions.c.id).where(dataset_versions.c.id == version.id)):
                return
            row = {"number": version.number, "id": version.id, "made_at": version.made_at}
            db.execute(dataset_versions.insert().values(row | {"body": version.model_dump(mode="json")}))

    def all(self) -> list[DatasetVersion]:
        """All cards, newest first."""
        query = sa.select(dataset_versions.c.body).order_by(dataset_versions.c.number.desc())
        with self._engine.connect() as db:
            return [DatasetVersion.model_validate(body) for body in db.scalars(query)]

    def get(self, version_id: str) -> DatasetVersion:
        """One card by its id, or by its number in digits. Raises NotFound."""
        for version in self.all():
            if version_id in (version.id, str(version.number)):
                return version
        raise NotFound(
            f"There is no dataset version '{version_id}'.",
            "An id such as ds-1-0a1b2c3d, or its number.",
            "`tonesmith datasets` lists them; `tonesmith curate` makes one.",
        )
