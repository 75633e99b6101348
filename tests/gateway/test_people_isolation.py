"""Nobody gets what the table of routes does not say: all routes, roles and owners.

The routes are those of the served OpenAPI description, with the roles that it says. What each
person sees is told here by a model of its own. The gateway runs in this process, so that a check
can be taken out of it, to show that this is noticed.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access import routes
from gateway.access.gate import Gate
from gateway.assembly import Gateway
from gateway.listing.runs import Listing
from gateway.roles import ROLES, Person, Role
from gateway.serving.hosts import find_hosts
from gateway.settings import Settings
from gateway.storage.store import Store
from testing.gateways.embedded_gateway import Answer, EmbeddedGateway
from testing.gateways.member import Member

EXAMPLES = 400
FOLDERS = ("/srv/shop", "/srv/secret", "/home/ann")
BOUNDS: tuple[dict[str, Any], ...] = ({}, {"own": True}, {"folders": ["/srv/sho?", "ann"]})
# What any request may have in its body; a route takes what it needs.
BODY = {
    "command": "pwd",
    "text": "x",
    "id": "q1",
    "digest": "x",
    "decision": "allow",
    "mode": "plan",
    "title": "a title",
    "page": "p",
    "visible": True,
    "texts": ["x"],
    "role": "viewer",
}


@dataclass(frozen=True)
class Made:
    """A run with what must not be seen of it: its id, its output, its file."""

    id: str
    owner: str | None
    folder: str
    mark: str
    artifact: str


@dataclass(frozen=True)
class Operation:
    """A row of the description."""

    method: str
    path: str
    role: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class World:
    """A gateway with people and runs. The last run is none."""

    def __init__(self, client: EmbeddedGateway) -> None:
        self.client = client
        self.people = [Member.admin(client)]
        for role in ("viewer", "operator"):
            for number, bounds in enumerate(BOUNDS):
                self.people.append(Member.add(client, f"{role}-{number}", role, **bounds))
        self.people.append(Member.add(client, "admin-0", "admin"))
        makers = [self.people[0], *(each for each in self.people if each.role == "operator")]
        self.runs = [self._make(maker, folder) for maker in makers for folder in FOLDERS]
        self.document = client.api("GET", "/api/openapi.json").json()
        self.operations = [
            Operation(method.upper(), path, item[method]["x-role"])
            for path, item in self.document["paths"].items()
            for method in item
            if "x-role" in item[method]
        ]

    def _make(self, maker: Member, folder: str) -> Made:
        run, mark = maker.create_run(), f"mark{secrets.token_hex(8)}"
        started: dict[str, Any] = {"event": "started", "workingDir": folder, "commands": ["pwd"]}
        started.update(remoteInput=True, remoteAnswers=True, prompt=mark, modes=["plan"])
        assert self.client.send_marker(run, started, 1).status == 200
        assert self.client.send_event(run, "stdout", f"{mark}\n", 2).status == 200
        artifact = self.client.send_artifact(run, "notes.md", mark.encode()).json()["artifactId"]
        return Made(run.id, maker.name, folder, mark, artifact)

    def ask(self, operation: Operation, person: Member, run: Made, name: str) -> Answer:
        """Send one request; of a stream the head and the first line."""
        path = operation.path.format(
            run_id=run.id, artifact_id=run.artifact, waiter_id="wait_0", name=name
        )
        if operation.path == "/api/runs/{run_id}/search":
            path += f"?q={run.mark}"
        elif operation.path == "/api/list":
            path += f"?q={run.mark[:6]}"
        headers = {**person.headers, "Content-Type": "application/json"}
        # Nobody is to be removed by a request that is refused.
        ids = ["run_0"] if person.role == "admin" else [run.id]
        fields = {"again": run.id, "name": name, "ids": ids, "key": secrets.token_hex(16)}
        fields["prompt"] = "x"
        body = json.dumps({**BODY, **fields}).encode() if operation.method == "POST" else None
        if not operation.path.endswith("/stream"):
            return self.client.request(operation.method, path, body, headers)
        with contextlib.closing(self.client.connect()) as connection:
            connection.request(operation.method, path, body, headers)
            response = connection.getresponse()
            head = {key.lower(): value for key, value in response.getheaders()}
            is_open = response.status == 200
            return Answer(
                response.status, head, response.readline() if is_open else response.read()
            )


def check(world: World, operation: Operation, person: Member, run: Made) -> None:
    """One person asks for one thing that names one run."""
    # An admin may remove people: somebody who is not there.
    name = "nobody" if person.role == "admin" else "viewer-1"
    answer = world.ask(operation, person, run, name)

    assert answer.status not in (401, 405, 500), (operation, answer)
    if ROLES[person.role] < ROLES[operation.role]:
        assert answer.status == 403, (operation, person.name, answer)
        said = f"This needs the role {operation.role}; yours is {person.role}."
        assert answer.error == said
    elif answer.status == 403:
        raise AssertionError(f"{operation} is refused to {person.name}")
    elif is_about_a_run(operation) and not person.sees(run.owner, run.folder):
        none = Made("run_0123456789abcdef", None, "", "x", "art_0123456789abcdef")
        missing = world.ask(operation, person, none, name)
        assert answer.status == 404, (operation, person.name, run, answer)
        assert (answer.status, answer.body) == (missing.status, missing.body), operation
    for other in world.runs:
        if not person.sees(other.owner, other.folder):
            told = answer.body.decode("utf-8", "replace") + json.dumps(answer.headers)
            for secret in (other.id, other.mark, other.artifact):
                assert secret not in told, (operation, person.name, other)


def is_about_a_run(operation: Operation) -> bool:
    """Whether its address names a run or a file, or its body a run to be repeated."""
    return (
        "{run_id}" in operation.path
        or "{artifact_id}" in operation.path
        or str(operation) in ("POST /api/runs",)
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A gateway in this process."""
    settings = Settings(
        data_dir=tmp_path,
        env_file=tmp_path / "env",
        hmac_secret="x" * 32,
        admin_token=secrets.token_hex(16),
        database_url=f"sqlite:///{tmp_path}/gateway.db",
        files_url="",
        rate_limit=0,
        output_days=0,
        files_days=0,
        audit_days=0,
        redact_patterns=None,
        notify=(),
        notify_quiet=None,
        runner_url="",
        runner_allows_self_signed=False,
        notes=(),
    )
    with Gateway(settings, find_hosts("127.0.0.1", "http", None), ("127.0.0.1", 0), None) as own:
        client = EmbeddedGateway(tmp_path / "client")
        client.env_file.write_text(f"HMAC_SECRET={settings.hmac_secret}\n")
        (tmp_path / "token").write_text(settings.admin_token)
        client.told = {"port": own.port, "admin_token_file": str(tmp_path / "token")}
        yield World(client)


def test_nobody_gets_what_the_table_does_not_say(world: World) -> None:
    """Each role at each route, for runs of each owner in each folder."""

    @settings(max_examples=EXAMPLES)
    @given(
        st.sampled_from(world.operations),
        st.sampled_from(world.people),
        st.sampled_from(world.runs),
    )
    def ask(operation: Operation, person: Member, run: Made) -> None:
        check(world, operation, person, run)

    ask()
    assert {each.role for each in world.operations} == set(ROLES)


def hidden_for_somebody(world: World, operation: str) -> None:
    """Ask for one route as everybody, for a run of each kind."""
    (found,) = [each for each in world.operations if str(each) == operation]
    for person in world.people:
        for run in world.runs:
            check(world, found, person, run)


def test_a_check_that_is_missing_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a role, of a run that an address names, of one that a body names, and of the list."""
    planted = {
        "POST /api/runs/{run_id}/stop": lambda: monkeypatch.setitem(
            routes.NEEDED, "POST /api/runs/{run_id}/stop", Role.VIEWER
        ),
        "GET /api/artifacts/{artifact_id}": lambda: monkeypatch.setattr(
            Gate, "_check_named", lambda *_: None
        ),
        "POST /api/runs": lambda: monkeypatch.setattr(Person, "sees_run", lambda *_: True),
        "GET /api/list": lambda: monkeypatch.setattr(Listing, "of", lambda own, _: own),
        "GET /api/runs": lambda: monkeypatch.setattr(
            Store, "runs", lambda own, *_, runs=Store.runs: runs(own, None, 200)
        ),
    }
    for operation, plant in planted.items():
        hidden_for_somebody(world, operation)
        plant()  # type: ignore[no-untyped-call]
        with pytest.raises(AssertionError):
            hidden_for_somebody(world, operation)
        monkeypatch.undo()
