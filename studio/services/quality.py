from annotation.people import Person
from annotation.store import Store


class QualityService:
    def __init__(self, store: Store, who: Person) -> None:
        self._store = store
        self._who = who
