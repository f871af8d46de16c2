"""The dataset of a queue in Argilla: made from the charter, found again, and put into the charter's words again."""

from __future__ import annotations

from collections.abc import Callable

from annotation.argilla_client import Argilla, Json, Refused
from annotation.argilla_form import OPTIONAL, Form, dataset_name, form_of, unlike, wording
from annotation.errors import NotFound, UserError
from annotation.store import Store
from annotation.store.argilla import Mirror
from annotation.types import Charter

NAMES_TRIED = 9
MARK = "tonesmith"
"""Our name in a dataset's own metadata."""


class Deleted(UserError):
    """A dataset of ours is no longer in Argilla, which itself says so."""

    def __init__(self, mirror: Mirror) -> None:
        self.dataset = mirror.id
        super().__init__(
            f"The dataset '{mirror.name}' was deleted in Argilla. What was judged there before is kept here.",
            "The dataset, or a new one.",
            "Make it anew with what is still open: `tonesmith argilla reconcile`.",
        )


class ArgillaDatasets:
    """Those of one store in one Argilla."""

    def __init__(self, store: Store, argilla: Argilla, making: Callable[[], None]) -> None:
        """`making` is called before a dataset is made."""
        self._store = store
        self._state = store.argilla
        self._argilla = argilla
        self._making = making

    def live(self, workspace: str, queue: str) -> Mirror:
        """A queue's dataset under the present charter, made if there is none. Raises Deleted, and UserError if none
        can be made.
        """
        charter = self._store.charters.current()
        if charter is None:
            raise UserError("There is no charter yet.", "The rules to judge by.", "Write one on the Charter page.")
        overlap = self._store.tasks.settings(queue).overlap
        drafts = self._state.has_drafts(queue)
        for mirror in self._state.mirrors(workspace):
            # Argilla adds no question to a dataset that is open: with the first drafts there is another one.
            asks_enough = "ranking" in mirror.questions or not drafts
            if (mirror.queue, mirror.charter_version) == (queue, charter.version) and asks_enough:
                self._check(mirror, overlap)
                return mirror
        self._making()
        form = form_of(charter, overlap, drafts)
        there = self._found_or_made(charter, form, workspace, queue)
        questions = {one["name"]: one["id"] for one in self._argilla.parts(there["id"], "questions")}
        mirror = Mirror(
            id=there["id"],
            workspace=workspace,
            queue=queue,
            charter_version=charter.version,
            name=there["name"],
            questions=questions,
        )
        self._state.add_mirror(mirror)
        return mirror

    def _check(self, mirror: Mirror, overlap: int) -> None:
        there = self.there(mirror)
        if there["distribution"]["min_submitted"] != overlap:
            self._argilla.change_dataset(mirror.id, distribution=_overlap(overlap))

    def there(self, mirror: Mirror) -> Json:
        """The dataset as Argilla has it. Raises Deleted, and UserError if Argilla can't say."""
        try:
            return self._argilla.dataset(mirror.id)
        except NotFound as error:
            raise Deleted(mirror) from error

    def _found_or_made(self, charter: Charter, form: Form, workspace: str, queue: str) -> Json:
        """A draft that a sync was cut off from is finished; a name that is somebody else's is left to them."""
        ours: Json = {"store": self._state.identity(), "queue": queue, "charter_version": charter.version}
        if any(one["name"] == "ranking" for one in form.questions):
            ours["drafts"] = True
        name = dataset_name(charter, queue)
        for number in range(1, NAMES_TRIED + 1):
            tried = name if number == 1 else f"{name}-{number}"
            there = self._argilla.dataset_called(tried, workspace)
            if there is None:
                there = self._made(tried, form, workspace, ours)
            if (there.get("metadata") or {}).get(MARK) == ours:
                return self._finished(there, form)
        raise UserError(
            f"Argilla has datasets called '{name}' that are not ours.", do="Rename them, or use another workspace."
        )

    def _made(self, name: str, form: Form, workspace: str, ours: Json) -> Json:
        about = {
            "name": name,
            "workspace_id": workspace,
            "guidelines": form.guidelines,
            "distribution": _overlap(form.min_submitted),
            "metadata": {MARK: ours},
        }
        try:
            return self._argilla.create_dataset(about)
        except Refused:
            there = self._argilla.dataset_called(name, workspace)  # somebody made it in this very moment
            if there is None:
                raise
            return there

    def _finished(self, there: Json, form: Form) -> Json:
        """Add what a draft lacks and open it. Raises UserError if it is open and asks something else."""
        dataset = there["id"]
        if there["status"] == "draft":
            for kind, wanted in (("fields", form.fields), ("questions", form.questions)):
                names = {one["name"] for one in self._argilla.parts(dataset, kind)}
                for part in wanted:
                    if part["name"] not in names:
                        self._argilla.add_part(dataset, kind, part)
            self.complete_metadata(dataset, form)
            self._argilla.publish(dataset)
            return there
        questions = self._argilla.parts(dataset, "questions")
        absent = {*OPTIONAL} - {one["name"] for one in questions}
        form = form.model_copy(update={"questions": tuple(one for one in form.questions if one["name"] not in absent)})
        fields = self._argilla.parts(dataset, "fields")
        if found := [one for one in unlike(form, questions, fields) if "draft_" not in one]:
            raise UserError(
                f"The dataset '{there['name']}' in Argilla was edited by hand: {', '.join(found)}.",
                "The questions of the charter.",
                "Rename it in Argilla, so that a new one can be made beside it.",
            )
        return there

    def work_out_anew(self, mirror: Mirror) -> None:
        """Let Argilla's worker set every record's state by its answers. One that is killed meanwhile leaves it half
        done, and the next one takes it up again after ten minutes at best.
        """
        overlap = self._store.tasks.settings(mirror.queue).overlap
        self._argilla.change_dataset(mirror.id, distribution=_overlap(overlap))

    def complete_metadata(self, dataset: str, form: Form) -> None:
        names = {one["name"] for one in self._argilla.parts(dataset, "metadata-properties")}
        for part in form.metadata:
            if part["name"] not in names:
                self._argilla.add_part(dataset, "metadata-properties", part)

    def reword(self, there: Json, form: Form) -> int:
        """Ask again in the charter's words what was reworded by hand; returns how much that was."""
        reworded = 0
        if there["guidelines"] != form.guidelines:
            self._argilla.change_dataset(there["id"], guidelines=form.guidelines)
            reworded += 1
        there_asked = {one["name"]: one for one in self._argilla.parts(there["id"], "questions")}
        for wanted in form.questions:
            question = there_asked.get(wanted["name"])
            if question and (words := wording(wanted)) != wording(question):
                self._argilla.change_question(question["id"], words)
                reworded += 1
        return reworded


def _overlap(people: int) -> Json:
    return {"strategy": "overlap", "min_submitted": people}
