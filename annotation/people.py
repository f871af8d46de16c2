"""Who may do what. Pure: the store keeps people, the services ask here."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from annotation.errors import UserError
from annotation.types import Frozen

Role = Literal["viewer", "reviewer", "curator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""From the least to the most; each may do all that those before it may."""
Permission = Literal["look", "judge", "curate", "manage"]
LEAST: dict[Permission, Role] = {"look": "viewer", "judge": "reviewer", "curate": "curator", "manage": "admin"}
"""The least role for each: `look` at anything; `judge` covers chatting, reviewing, correcting and voting; `curate` the
charter, queues, settling, datasets, runs and adapters; `manage` people."""
TO_DO: dict[Permission, str] = {
    "look": "look at this project",
    "judge": "judge replies",
    "curate": "change how the project runs",
    "manage": "change who works here",
}

PersonName = Annotated[str, Field(pattern=r"^[\w.@-]{1,64}$")]


class Forbidden(UserError):
    """The person's role does not allow it."""


class Person(Frozen):
    """Somebody who works here, as they stand now."""

    name: PersonName
    role: Role = "reviewer"
    skills: tuple[str, ...] = ()
    """What only some can judge, for example a language tag; a reply may ask for one."""
    active: bool = True
    """False once they have left; what they said stays."""

    def may(self, permission: Permission) -> bool:
        """Whether the role allows it."""
        return self.active and ROLES.index(self.role) >= ROLES.index(LEAST[permission])

    def must(self, permission: Permission) -> None:
        """Raises Forbidden if the role does not allow it."""
        if self.may(permission):
            return
        if not self.active:
            raise Forbidden(f"The account '{self.name}' is closed.", do="Ask an admin to open it again.")
        raise Forbidden(
            f"You are signed in as {self.name}, a {self.role}, who can't {TO_DO[permission]}.",
            f"The role {LEAST[permission]} or above.",
            "Ask an admin to change your role on the Team page.",
        )
