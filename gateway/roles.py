"""Who a person is, what a person may do, and which runs a person may see. Pure."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# A name stands in addresses, in headers and in lists: no blanks, no commas, no slashes.
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
MAX_FOLDERS: Final = 50
MAX_PATTERN: Final = 1_000


class Role(enum.IntEnum):
    """What a person may do. Each role may do what those before it may."""

    ANYONE = 0  # also who is not signed in
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """What people call it."""
        return self.name.lower()


# By the words that people write.
ROLES: Final = {role.word: role for role in Role if role is not Role.ANYONE}


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in, and how: by `token`, `session` or `proxy`.

    Who has the admin token has no name. `own` and `folders` bound what is seen: own runs alone, or
    those in these folders. An own run is always seen.
    """

    name: str | None
    role: Role
    how: str = ""
    own: bool = False
    folders: tuple[str, ...] = ()
    until: float = math.inf
    id: str | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether there are runs that this person does not see."""
        return self.role is not Role.ADMIN and (self.own or bool(self.folders))

    def sees(self, owner: str | None, working_dir: str | None) -> bool:
        """Whether a run is seen, by whom it belongs to and where it works."""
        if not self.is_bounded or (owner is not None and owner == self.name):
            return True
        return not self.own and any(matches(each, working_dir or "") for each in self.folders)

    def sees_run(self, run: Mapping[str, Any]) -> bool:
        """Whether a run is seen, given what the API shows of it."""
        return self.sees(run["owner"], run["working_dir"])

    def sees_offer(self, name: str) -> bool:
        """Whether a folder that waits is seen; all that is known of its place is its name."""
        if not self.is_bounded or not self.folders:
            return True
        return any(matches(each, f"/{name}") for each in self.folders)


# What is kept of the admin token's holder.
ADMIN: Final = Person(None, Role.ADMIN)


def whole_pattern(pattern: str) -> str:
    """Return a pattern for whole paths: one that does not begin with / may begin behind any."""
    return pattern if pattern.startswith(("/", "*")) else f"*/{pattern}"


def matches(pattern: str, path: str) -> bool:
    """Whether a path has this pattern, in which * is any text and ? any character.

    `storage.people` asks the database the same.
    """
    parts = (_WILD.get(each, re.escape(each)) for each in whole_pattern(pattern))
    return re.fullmatch("".join(parts), path, re.DOTALL) is not None


_WILD: Final = {"*": ".*", "?": "."}
