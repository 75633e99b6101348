"""The operator of a run that asks: what its page shows of the run, and what he does there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from testing.gateways.gateway_records import Ack, AnyGateway

# A busy machine is no failure.
WITHIN_S: Final = 60.0


class Operator:
    """The operator of one run."""

    def __init__(self, gateway: AnyGateway, run_id: str) -> None:
        self.gateway = gateway
        self.run_id = run_id

    # --- what the gateway has ---

    def markers(self, event: str) -> list[dict[str, Any]]:
        """Return the markers of one kind."""
        return self.gateway.markers(self.run_id, event)

    def wait_for_markers(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until there are so many of a kind, and return all of them."""

        def look() -> list[dict[str, Any]]:
            found = self.markers(event)
            return found if len(found) >= count else []

        return self.gateway.wait_for(look, WITHIN_S)

    def asked(self, number: int = 1) -> dict[str, Any]:
        """Wait for a question, and return its marker."""
        return self.wait_for_markers("asked", number)[number - 1]

    def finished(self) -> dict[str, Any]:
        """Return the `finished` marker, after the gateway has judged the run."""
        assert self.gateway.verify_finished(self.run_id) == []
        (marker,) = self.markers("finished")
        return marker

    def info(self, pattern: str) -> re.Match[str]:
        """Wait for an `info` text, and return what of it matches."""
        found = self.gateway.wait_for(
            lambda: re.search(pattern, self.gateway.text(self.run_id, "info")), WITHIN_S
        )
        assert found is not None
        return found

    @property
    def open_cards(self) -> list[str]:
        """The ids of the questions whose cards a page would still show."""
        closed = {each["id"] for name in ("answered", "withdrawn") for each in self.markers(name)}
        return [each["id"] for each in self.markers("asked") if each["id"] not in closed]

    # --- the operator ---

    def order(self, text: str) -> Ack:
        """Give the run a command, and wait for its acknowledgement."""
        queued = self.gateway.queue_command(self.run_id, text)
        return self.gateway.wait_for(
            lambda: self.gateway.acks(self.run_id).get(queued, []), WITHIN_S
        )[0]

    def enter(self, text: str) -> Ack:
        """Type into the input box."""
        return self.order(f"__INPUT__:{text}")

    def answer(self, asked: Mapping[str, Any], decision: str = "allow", **fields: Any) -> Ack:
        """Answer as a card does."""
        return self.order(answer_text(asked, decision, **fields))


def answer_text(asked: Mapping[str, Any], decision: str = "allow", **fields: Any) -> str:
    """Return the command of a card's answer."""
    named = {"id": asked["id"], "digest": asked["digest"], "decision": decision}
    return "__ANSWER__:" + json.dumps({**named, **fields})


DIGEST: Final = "0123456789abcdef" * 4


def asked_marker(question_id: str = "q1", **fields: Any) -> dict[str, Any]:
    """Return the marker of a permission, as a runner sends it."""
    return {
        "event": "asked",
        "id": question_id,
        "code": "K7Q2X",
        "digest": DIGEST,
        "kind": "permission",
        "tool": "Bash",
        "input": {"command": f"pytest -q {question_id}"},
        "hidden": False,
        "whole": True,
        "scopes": [],
        "defaultsToNo": False,
        **fields,
    }
