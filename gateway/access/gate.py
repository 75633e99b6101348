"""The one place in which it is decided whether a person gets what a request asks for.

A person who is not bounded sees every run, and learns from the answer itself what there is not. To
one who is, what may not be seen is what does not exist: both end here, before anything of the
request is looked at, in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.access.routes import needed
from gateway.offers.folders import Offers
from gateway.roles import Person, Role
from gateway.storage.store import Store

NO_RUN = "There is no such run."
NO_ARTIFACT = "There is no such artifact."
NO_FOLDER = "There is no such folder."


class GateError(Exception):
    """A request that is refused; the message is one plain sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Gate:
    """The checks. Thread: any."""

    def __init__(self, store: Store, offers: Offers) -> None:
        self._store = store
        self._offers = offers

    def check(self, person: Person, method: str, path: str, named: Mapping[str, Any]) -> None:
        """Raise GateError unless a person may have this route, and what its address names."""
        role = needed(method, path)
        if role is None:  # none that was started has no role
            raise GateError(403, "This address is for nobody.")
        if person.role < role:
            raise GateError(
                403, f"This needs the role {role.word}; yours is {Role(person.role).word}."
            )
        if person.is_bounded:
            self._check_named(person, named)

    def _check_named(self, person: Person, named: Mapping[str, Any]) -> None:
        if "run_id" in named and not self._store.sees(person, named["run_id"]):
            raise GateError(404, NO_RUN)
        if "artifact_id" in named:
            artifact = self._store.artifact(named["artifact_id"])
            if artifact is None or not self._store.sees(person, artifact["run_id"]):
                raise GateError(404, NO_ARTIFACT)
        if "waiter_id" in named:
            name = self._offers.name_of(named["waiter_id"])
            if name is None or not person.sees_offer(name):
                raise GateError(404, NO_FOLDER)
