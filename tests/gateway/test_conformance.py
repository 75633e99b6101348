"""The wire protocol, as docs/protocol.md has it, over every gateway that is here.

`strict` is the one of the tests without the extensions, `extended` the same with them, `embedded`
the one that people run. Where the protocol leaves a choice, either is right.
"""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import select
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import EmbeddedRecord
from testing.gateways.gateway_records import Ack, AnyGateway, Run
from testing.gateways.refused_requests import REFUSALS
from testing.gateways.signing_client import (
    ARTIFACT_PATH,
    ENDED,
    EVENT_PATH,
    JSON,
    WITHOUT,
    Answer,
    Attempt,
    Client,
    own_client,
)
from testing.gateways.strict_gateway import StrictGateway

# Of JavaScript's UTF-16 code units, of bytes, of bytes.
MAX_DATA_UNITS = 1_048_576
MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_ARTIFACT_BYTES = 52_428_800


@dataclass
class Subject:
    """A gateway, and a client with a run of it. `is_extended`: whether it has the extensions."""

    gateway: AnyGateway
    client: Client
    is_extended: bool

    @property
    def run_id(self) -> str:
        """The run."""
        return self.client.run.id

    def data(self) -> list[str]:
        """Return the data of all events that are stored."""
        return [event.data for event in self.gateway.events(self.run_id)]


@contextmanager
def strict(**options: Any) -> Iterator[StrictGateway]:
    """Open a strict gateway that leaves it to the test to judge what it is sent."""
    with StrictGateway(**{"rate_limit": None, **options}) as gateway:
        gateway.allow("")
        yield gateway


@pytest.fixture(params=["strict", "extended", "embedded"])
def subject(request: pytest.FixtureRequest, embedded_gateway: EmbeddedRecord) -> Iterator[Subject]:
    """Each gateway in turn, with a run of the test's own, and without a rate limit."""
    if request.param == "embedded":
        with closing(own_client(embedded_gateway)) as client:
            yield Subject(embedded_gateway, client, is_extended=True)
        return
    is_extended = request.param == "extended"
    opened = strict(idempotent=is_extended, long_poll=is_extended)
    with opened as gateway, closing(own_client(gateway)) as client:
        yield Subject(gateway, client, is_extended)


# --- signing -----------------------------------------------------------------------------------

VECTOR_SECRET = "k" * 32
VECTOR_RUN = Run("run_A1", "0123456789abcdef" * 4)
VECTORS_AT = 1_700_000_000
VECTORS = {
    "poll": (
        "GET",
        "/api/runs/run_A1/commands",
        b"",
        "00112233445566778899aabbccddeeff",
        "1d5b7b03d3ac496c8788c5dc3e7fc323f1159ea4865c8dc4c2d6758433ab1de8",
    ),
    "event": (
        "POST",
        EVENT_PATH,
        '{"type":"stdout","data":"héllo\\n","sequence":1}'.encode(),
        "ffeeddccbbaa99887766554433221100",
        "d697c73173fa6a8965cf1692e9ed2e25a1f07cd6cff90618e8ecd2952b0068dd",
    ),
    "artifact": (
        "POST",
        ARTIFACT_PATH,
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n',
        "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "898afd3712d0ec34ce19e471f144c4290505920e5a96a7d9a16c2b8ed7dae91d",
    ),
    "ack": (
        "POST",
        "/api/runs/run_A1/commands/c9/ack",
        b'{"result":"ok"}',
        "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
        "3fd31ca3191103e4b4c8b7b8ac001c5315a8854a6f12d84ae9b5f3d31c8f1579",
    ),
}


class ShiftedGateway(EmbeddedGateway):
    """An embedded gateway on a machine whose clock is wrong by `offset_s`."""

    offset_s = 0.0
    _SHIFT = (
        "import runpy, sys, time; real, offset = time.time, float(sys.argv[1]); "
        "time.time = lambda: real() + offset; sys.argv[:2] = []; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )

    def command(self) -> list[str]:
        """Return the command line that starts it."""
        python, *rest = super().command()
        assert python == sys.executable
        return [python, "-c", self._SHIFT, str(self.offset_s), *rest]


@contextmanager
def gateway_at(kind: str, offset_s: float, secret: str, folder: Path) -> Iterator[AnyGateway]:
    """Open a gateway whose clock is ahead by so much."""
    if kind == "strict":
        with strict(secret=secret) as gateway:
            gateway.clock_offset_s = offset_s
            yield gateway
    else:
        shifted = ShiftedGateway(folder, env={"HMAC_SECRET": secret})
        shifted.offset_s = offset_s
        with shifted:
            yield EmbeddedRecord(shifted, secret)


def add_vector_run(gateway: AnyGateway, folder: Path) -> None:
    """Make the run of the vectors, and its command."""
    if isinstance(gateway, StrictGateway):
        gateway.create_run(run_id=VECTOR_RUN.id, token=VECTOR_RUN.token)
        gateway.queue_command(VECTOR_RUN.id, "git status", "c9")
        return
    run = gateway.create_run()
    gateway.stop(run.id)
    token_hash = hashlib.sha256(VECTOR_RUN.token.encode()).digest()
    with closing(sqlite3.connect(folder / "data" / "gateway" / "gateway.db")) as database:
        database.execute("UPDATE runs SET id = ?, token_hash = ?", (VECTOR_RUN.id, token_hash))
        database.execute("UPDATE commands SET run_id = ?, id = 'c9'", (VECTOR_RUN.id,))
        database.commit()


@pytest.mark.parametrize("kind", ["strict", "embedded"])
def test_published_vectors_are_accepted(kind: str, tmp_path: Path) -> None:
    """The four signatures that were computed elsewhere pass, and the tests' signing agrees."""
    with gateway_at(kind, VECTORS_AT - time.time(), VECTOR_SECRET, tmp_path) as gateway:
        add_vector_run(gateway, tmp_path)
        with closing(Client(gateway, VECTOR_RUN)) as client:
            for number, vector in enumerate(VECTORS.values()):
                method, path, body, nonce, signature = vector
                content_type = "multipart/form-data; boundary=b" if b"--b" in body else JSON
                timestamp = str(VECTORS_AT + number)
                attempt = client.sign(
                    method, path, body, content_type=content_type, timestamp=timestamp, nonce=nonce
                )
                assert attempt.headers["X-Signature"] == signature
                assert client.send(attempt).status == 200, path

        assert gateway.text(VECTOR_RUN.id) == "héllo\n"
        assert gateway.acks(VECTOR_RUN.id) == {"c9": [Ack("ok", None)]}
        assert [each.data for each in gateway.artifacts(VECTOR_RUN.id)] == [b"x"]


def test_query_is_not_signed(subject: Subject) -> None:
    """The signature covers the path without the query string."""
    assert subject.client.poll("?wait=0&x=1").json == []


@pytest.mark.parametrize("part", ["method", "path", "body", "time", "nonce", "run", "token"])
def test_all_that_is_signed_is_checked(subject: Subject, part: str) -> None:
    """With one of the seven fields changed after signing, the signature is not good any more."""
    client = subject.client
    other = subject.gateway.create_run()
    ack = f"/api/runs/{subject.run_id}/commands/c1/ack"
    attempt = client.sign("POST", ack, b'{"result":"a"}')
    if part == "method":
        attempt = client.sign("PUT", ack, b'{"result":"a"}')
        attempt.method, attempt.headers["Content-Type"] = "POST", JSON
    elif part == "path":
        attempt.path = attempt.path.replace("c1", "c2")
    elif part == "body":
        attempt.body = b'{"result":"b"}'
    elif part == "time":
        attempt.headers["X-Timestamp"] = str(int(attempt.headers["X-Timestamp"]) + 1)
    elif part == "nonce":
        attempt.headers["X-Nonce"] = os.urandom(16).hex()
    elif part == "run":
        attempt.headers["X-Run-Id"] = other.id
    else:
        attempt.headers["X-Capability-Token"] = other.token

    answer = client.send(attempt)

    assert (answer.status, answer.json["error"]) == (401, "Invalid signature")


# --- endpoints ---------------------------------------------------------------------------------


def test_health_needs_no_signature(subject: Subject) -> None:
    """The health check is answered to anybody."""
    answer = subject.client.send(Attempt("GET", "/api/health", b"", {}))

    assert (answer.status, answer.json["status"]) == (200, "ok")


def test_a_whole_run_is_recorded(subject: Subject) -> None:
    """Events, state, exit code and an honest end are all there to be asked for."""
    gateway, client, run_id = subject.gateway, subject.client, subject.run_id
    states = [gateway.status(run_id)]
    started = json.dumps({"event": "started"})
    client.event("marker", started)
    states.append(gateway.status(run_id))
    client.event("stdout", "héllo\n")
    client.event("stderr", "oh\n")
    client.event("stdout", "bye\n")
    end = finished([started, "héllo\n", "oh\n", "bye\n"])

    answer = client.event("marker", json.dumps(end))

    assert answer.json["ok"] is True
    assert isinstance(answer.json["eventId"], int)
    assert [*states, gateway.status(run_id)] == ["pending", "running", "done"]
    assert gateway.text(run_id) == "héllo\nbye\n"
    assert gateway.text(run_id, "stderr") == "oh\n"
    assert gateway.markers(run_id) == [{"event": "started"}, end]
    assert [event.sequence for event in gateway.events(run_id)] == [1, 2, 3, 4, 5]
    assert gateway.exit_code(run_id) == 0


def finished(sent: list[str], code: int = 0) -> dict[str, Any]:
    """Return the marker that ends a run whose numbered events had this data."""
    data = "".join(sent).encode()
    account = {"events": len(sent), "bytes": len(data), "refused": 0}
    digest = hashlib.sha256(data).hexdigest()
    return {"event": "finished", "exitCode": code, "reason": "exited", **account, "sha256": digest}


@pytest.mark.parametrize("kind", ["stdout", "stderr", "marker", "info", "error", "assist"])
def test_every_type_is_taken(subject: Subject, kind: str) -> None:
    """The six types of events: data is text, and JSON in two of them; assist has no sequence."""
    data = {
        "marker": '{"event":"state","state":"working"}',
        "assist": '{"type":"tmate","url":"https://tmate.example/t/1"}',
    }.get(kind, "\0\x1b[1m€😀")
    sequence = (WITHOUT, 0) if kind == "assist" else (1, 1)

    assert subject.client.event(kind, data, sequence[0]).status == 200

    (event,) = subject.gateway.events(subject.run_id)
    assert (event.type, event.data, event.sequence) == (kind, data, sequence[1])


def test_events_are_shown_in_the_order_of_their_arrival(subject: Subject) -> None:
    """Nothing is sorted by sequence, and 0 is a sequence that may come often."""
    for sequence in (3, 1, 0, 0, 2):
        subject.client.event("stdout", f"{sequence} ", sequence)

    assert subject.data() == ["3 ", "1 ", "0 ", "0 ", "2 "]


def test_a_command_is_listed_until_it_is_acknowledged(subject: Subject) -> None:
    """Commands come oldest first, again and again, until their ack; a second ack does no harm."""
    gateway, client, run_id = subject.gateway, subject.client, subject.run_id
    client.event("marker", json.dumps({"event": "started", "commands": ["git status"]}))
    first = gateway.queue_command(run_id, "git status")
    second = gateway.stop(run_id)

    before = [client.poll().json, client.poll().json]
    client.ack(first, {"result": "clean"})
    after = client.poll().json
    assert client.ack(second, {"error": "no"}).json == {"ok": True}

    assert before[0] == before[1]
    assert [(each["id"], each["command"]) for each in before[0]] == [
        (first, "git status"),
        (second, "__STOP__"),
    ]
    assert isinstance(before[0][0]["created_at"], int)
    assert abs(before[0][0]["created_at"] - time.time()) < 60
    assert [each["id"] for each in after] == [second]
    assert client.poll().json == []
    assert gateway.acks(run_id) == {first: [Ack("clean", None)], second: [Ack(None, "no")]}
    assert client.ack(first, {"result": "cleaner"}).status == 200
    assert gateway.acks(run_id)[first][-1] == Ack("cleaner", None)


def test_an_artifact_is_stored_byte_for_byte(subject: Subject) -> None:
    """A multipart upload comes out with its name and its exact bytes."""
    data = bytes(range(256)) + b"\r\n--\r\n"

    answer = subject.client.upload("claude.log", data)

    told = (answer.json["ok"], answer.json["name"], answer.json["size"])
    assert told == (True, "claude.log", len(data))
    assert isinstance(answer.json["artifactId"], str)
    [artifact] = subject.gateway.artifacts(subject.run_id)
    assert (artifact.name, artifact.data) == ("claude.log", data)


def test_a_chunked_body_is_read(subject: Subject) -> None:
    """A body whose size is not announced is understood."""
    client = subject.client
    attempt = client.event_attempt("stdout", "in pieces")
    pieces = iter([attempt.body[:10], attempt.body[10:]])
    client.connection.request(
        attempt.method, attempt.path, pieces, attempt.headers, encode_chunked=True
    )

    assert client.connection.getresponse().read()
    assert subject.data() == ["in pieces"]


def test_a_connection_is_kept_alive(subject: Subject) -> None:
    """Requests follow each other over one connection, also after a refusal."""
    subject.client.poll()
    first = subject.client.connection.sock
    subject.client.event("stdout", "x")
    subject.client.event("stdout", "x", -1)

    assert first is not None
    assert subject.client.connection.sock is first


# --- markers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "status"), [(0, "done"), (3, "failed"), (137, "failed")])
def test_the_exit_code_decides(subject: Subject, code: int, status: str) -> None:
    """`finished` moves the run to done or failed."""
    subject.client.event("marker", json.dumps(finished([], code)))

    run_id = subject.run_id
    assert (subject.gateway.status(run_id), subject.gateway.exit_code(run_id)) == (status, code)


def test_the_last_marker_counts(subject: Subject) -> None:
    """A `started` after `finished` sets the run to running, a second `finished` its exit code."""
    gateway, run_id = subject.gateway, subject.run_id
    subject.client.event("marker", json.dumps(finished([], 3)))
    subject.client.event("marker", '{"event":"started"}')
    in_between = gateway.status(run_id)
    subject.client.event("marker", json.dumps({"event": "finished", "exitCode": 0}))

    assert in_between == "running"
    assert (gateway.status(run_id), gateway.exit_code(run_id)) == ("done", 0)


def test_an_unknown_marker_changes_nothing(subject: Subject) -> None:
    """A reader ignores fields and markers that it does not know."""
    subject.client.event("marker", '{"event":"started","later":[{}]}')

    assert subject.client.event("marker", '{"event":"from a later version"}').status == 200
    assert subject.gateway.status(subject.run_id) == "running"


def test_a_marker_that_is_no_json_is_refused(subject: Subject) -> None:
    """With 500; whether it is stored besides is left to the gateway. The run is not hurt."""
    assert subject.client.event("marker", "{broken").status == 500

    assert subject.data() in ([], ["{broken"])
    assert subject.client.event("stdout", "x").status == 200
    assert subject.gateway.status(subject.run_id) == "pending"


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_have_the_documented_shape(subject: Subject, case: str) -> None:
    """What the protocol forbids is refused with its status and text, and stored nowhere."""
    build, status, error, _ = REFUSALS[case]
    client = subject.client

    answer = client.send(build(client))

    assert answer.status == status
    assert isinstance(answer.json["error"], str)
    assert error is None or answer.json == {"error": error}
    assert subject.data() == []
    assert subject.gateway.artifacts(subject.run_id) == []
    assert client.poll().status == 200  # and the connection is still good


def test_a_wrong_secret_can_be_told_without_a_run(subject: Subject) -> None:
    """Without a run the answer is 400 if the signature is right and 401 if not."""
    right = subject.client.event("info", "probe", run_id="", token="")
    stranger = Client(subject.gateway, subject.client.run, secret=os.urandom(8).hex())
    with closing(stranger):
        wrong = stranger.event("info", "probe", run_id="", token="")

    assert (right.status, right.json) == (400, {"error": "Run ID required"})
    assert (wrong.status, wrong.json) == (401, {"error": "Invalid signature"})


def test_the_order_of_the_checks(subject: Subject) -> None:
    """Type, headers, time, nonce, signature, token: the first thing that is wrong is told."""
    client = subject.client
    spent = os.urandom(16).hex()
    assert client.event("info", "x", nonce=spent).status == 200
    stranger = Client(subject.gateway, client.run, secret="wrong")
    old = str(int(time.time()) - 400)

    def refusal(who: Client, without: str = "", **how: Any) -> tuple[int, str]:
        attempt = who.sign("POST", EVENT_PATH, b'{"type":"info"}', **how)
        attempt.headers.pop(without, None)
        answer = who.send(attempt)
        return answer.status, answer.json["error"]

    with closing(stranger):
        wrong: dict[str, Any] = {"token": "0" * 64, "nonce": spent, "timestamp": old}
        text = refusal(stranger, "X-Signature", content_type="text/plain", **wrong)
        assert text[0] == 415
        missing = refusal(stranger, "X-Signature", **wrong)
        assert missing == (401, "Missing authentication headers")
        late = refusal(stranger, **wrong)
        assert late == (401, "Request timestamp out of allowed range")
        del wrong["timestamp"]
        again = refusal(stranger, **wrong)
        assert again == (401, "Nonce already used (replay attack detected)")
        del wrong["nonce"]
        assert refusal(stranger, **wrong) == (401, "Invalid signature")
    assert refusal(client, **wrong) == (403, "Invalid capability token for run")
    assert refusal(client)[0] == 500


@pytest.mark.parametrize(("skew_s", "status"), [(-310, 401), (-290, 200), (290, 200), (310, 401)])
def test_clocks_may_differ_by_300_s(subject: Subject, skew_s: int, status: int) -> None:
    """And not by more."""
    timestamp = str(int(time.time()) + skew_s)

    assert subject.client.event("stdout", "x", timestamp=timestamp).status == status


@pytest.mark.parametrize("kind", ["strict", "embedded"])
def test_a_wrong_clock_is_told_by_the_date(kind: str, tmp_path: Path) -> None:
    """The `Date` header of the refusal says by how much the clocks differ."""
    opened = gateway_at(kind, -3600.0, "s" * 40, tmp_path)
    with opened as gateway, closing(own_client(gateway)) as client:
        answer = client.event("stdout", "x")

    assert answer.json == {"error": "Request timestamp out of allowed range"}
    told_s = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()
    assert -3700 < told_s < -3500


# --- limits ------------------------------------------------------------------------------------


def test_the_largest_data_is_taken(subject: Subject) -> None:
    """1,048,576 UTF-16 code units; half as many characters that have two."""
    data = "😀" * (MAX_DATA_UNITS // 2)

    assert subject.client.event("stdout", data).status == 200
    assert subject.data() == [data]


def test_more_data_than_that_is_refused_or_kept_whole(subject: Subject) -> None:
    """Not every release enforces the limit; none cuts."""
    data = "x" * (MAX_DATA_UNITS + 1)

    answer = subject.client.event("stdout", data)

    assert (answer.status, subject.data()) in [(500, []), (200, [data])]


def test_a_json_body_over_10_mib_is_refused(subject: Subject) -> None:
    """A body over the limit is answered 413, whoever sends it."""
    content = {"error": None, "result": "x" * MAX_BODY_BYTES}

    assert refused_for_size(subject.client, json.dumps(content).encode()).status == 413


def refused_for_size(client: Client, body: bytes) -> Answer:
    """Send a body, and read the answer although it may come before all of it has gone."""
    attempt = client.sign("POST", EVENT_PATH, body)
    connection = client.connection
    connection.putrequest(attempt.method, attempt.path)
    for name, value in {**attempt.headers, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        connection.send(body)
    except ConnectionError:
        pass  # it has heard enough
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def test_acknowledgements_have_limits_of_their_own(subject: Subject) -> None:
    """A result as large as the body allows, and an error of 100,000 characters.

    The embedded gateway keeps both, and hands the beginning of such a result to its page.
    """
    client = subject.client
    result = "x" * (MAX_BODY_BYTES - 100)
    first, second = (subject.gateway.stop(subject.run_id) for _ in range(2))

    assert client.ack(first, {"result": result}).status == 200
    assert client.ack(second, {"error": "e" * 100_000}).status == 200

    acks = subject.gateway.acks(subject.run_id)
    assert acks[second] == [Ack(None, "e" * 100_000)]
    (whole,) = acks[first]
    assert (whole.result or "").startswith(result[:200_000])


def test_a_command_id_over_the_limit_is_refused(subject: Subject) -> None:
    """1 to 50 characters."""
    assert subject.client.ack("c" * 51, {"result": "x"}).status == 400


def test_an_early_413_comes_before_the_body(subject: Subject) -> None:
    """A Content-Length over an artifact's limit is refused while nothing of the body was sent."""
    client = subject.client
    kind = "multipart/form-data; boundary=b"
    attempt = client.sign("POST", ARTIFACT_PATH, content_type=kind)
    client.connection.putrequest(attempt.method, attempt.path)
    for name, value in {
        **attempt.headers,
        "Content-Length": str(MAX_ARTIFACT_BYTES + 1),
    }.items():
        client.connection.putheader(name, value)
    client.connection.endheaders()

    assert client.connection.getresponse().status == 413


LIMITED = 3


@pytest.fixture(params=["strict", "embedded"])
def limited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A client of a gateway that takes three requests a minute."""
    if request.param == "strict":
        with strict(rate_limit=(LIMITED, 60.0)) as gateway, closing(own_client(gateway)) as client:
            yield client
        return
    embedded = EmbeddedGateway(tmp_path_factory.mktemp("limited"), rate_limit=LIMITED)
    with embedded, closing(own_client(EmbeddedRecord(embedded))) as client:
        yield client


def test_the_rate_limit_is_announced_and_kept(limited: Client) -> None:
    """Every reply says where the budget stands; past it comes 429, before anything is checked."""
    passed = [limited.poll(), limited.event("stdout", "x"), limited.event("stdout", "x", -1)]
    attempt = limited.event_attempt("stdout", "y")
    forged = Attempt(attempt.method, attempt.path, attempt.body, {**attempt.headers})
    forged.headers["X-Signature"] = "0" * 64

    for refused in (limited.send(attempt), limited.send(forged), limited.upload("a", b"x" * 300)):
        assert refused.status == 429
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert refused.json == {
            "statusCode": 429,
            "error": "Too Many Requests",
            "message": f"Rate limit exceeded, retry in {refused.headers['retry-after']} seconds",
        }
        assert 0 < int(refused.headers["retry-after"]) <= 60

    assert [answer.status for answer in passed] == [200, 200, 500]
    assert [answer.headers["x-ratelimit-limit"] for answer in passed] == [str(LIMITED)] * 3
    assert [answer.headers["x-ratelimit-remaining"] for answer in passed] == ["2", "1", "0"]
    assert all(0 < int(answer.headers["x-ratelimit-reset"]) <= 60 for answer in passed)


@pytest.mark.parametrize("kind", ["strict", "embedded"])
def test_the_limit_of_before_is_100_in_60_s(kind: str, tmp_path: Path) -> None:
    """Without a word of the operator it is the documented budget."""
    if kind == "strict":
        with StrictGateway() as gateway, closing(own_client(gateway)) as client:
            headers = client.poll().headers
    else:
        # An empty setting is none.
        embedded = EmbeddedGateway(tmp_path, env={"CLAUDE_RUNNER_GATEWAY_RATE_LIMIT": ""})
        with embedded, closing(own_client(EmbeddedRecord(embedded))) as client:
            headers = client.poll().headers

    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("100", "99")


def test_a_refused_upload_leaves_a_usable_gateway(limited: Client) -> None:
    """A 429 before the body was read confuses nobody: what follows is a request of its own."""
    for _ in range(LIMITED):
        limited.poll()

    assert limited.upload("a.log", b"GET /api/health HTTP/1.1\r\n\r\n" * 10_000).status == 429

    try:
        answer = limited.poll()
    except ENDED:
        answer = limited.poll()  # it may have ended the connection with the refusal
    assert answer.status == 429


# --- what follows from it ----------------------------------------------------------------------


def test_a_repeated_attempt_is_refused_and_stored_once(subject: Subject) -> None:
    """The second copy says that the first was accepted, whatever the endpoint is."""
    client = subject.client
    command = subject.gateway.stop(subject.run_id)
    ack = f"/api/runs/{subject.run_id}/commands/{command}/ack"
    for attempt in (
        client.event_attempt("stdout", "once"),
        client.sign("POST", ack, b'{"result":"ok"}'),
        client.sign("GET", f"/api/runs/{subject.run_id}/commands"),
    ):
        assert client.send(attempt).status == 200

        again = client.send(attempt)

        assert again.status == 401
        assert again.json == {"error": "Nonce already used (replay attack detected)"}
    assert subject.data() == ["once"]
    assert subject.gateway.acks(subject.run_id) == {command: [Ack("ok", None)]}


def test_a_nonce_is_good_for_one_request_of_any_run(subject: Subject) -> None:
    """Used for another request, by another run, it is refused."""
    nonce = os.urandom(16).hex()
    subject.client.event("stdout", "a", nonce=nonce)

    assert subject.client.event("stdout", "b", nonce=nonce).status == 401
    with closing(own_client(subject.gateway)) as other:
        assert other.event("stdout", "c", nonce=nonce).status == 401


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"X-Signature": "0" * 64}, 401),
        ({"X-Timestamp": "1000"}, 401),
        ({"Content-Type": "text/plain"}, 415),
    ],
    ids=["signature", "timestamp", "type"],
)
def test_a_refused_request_has_not_spent_its_nonce(
    subject: Subject, wrong: dict[str, str], status: int
) -> None:
    """Nobody without the secret can spend somebody else's nonce."""
    attempt = subject.client.event_attempt("stdout", "x")
    forged = Attempt(attempt.method, attempt.path, attempt.body, {**attempt.headers, **wrong})

    assert subject.client.send(forged).status == status
    assert subject.client.send(attempt).status == 200


def test_a_wrong_token_has_not_spent_the_nonce(subject: Subject) -> None:
    """A 403 leaves it good, a 500 does not."""
    nonce = os.urandom(16).hex()

    assert subject.client.event("stdout", "x", token="0" * 64, nonce=nonce).status == 403
    assert subject.client.event("stdout", "x", -1, nonce=nonce).status == 500
    assert subject.client.event("stdout", "x", nonce=nonce).status == 401


def test_a_run_is_good_for_itself_alone(subject: Subject) -> None:
    """Another run's commands are neither listed nor acknowledged, by path, header or id."""
    other = subject.gateway.create_run()
    command = subject.gateway.stop(other.id)
    commands = f"/api/runs/{other.id}/commands"
    client = subject.client

    listed = client.send(client.sign("GET", commands))
    acked = client.send(client.sign("POST", f"{commands}/{command}/ack", b'{"result":"x"}'))
    client.ack(command, {"result": "by its id, under the own run"})

    for answer in (listed, acked):
        assert (answer.status, answer.json) == (403, {"error": "Capability token mismatch"})
    assert subject.gateway.acks(other.id) == {}
    with closing(Client(subject.gateway, other)) as theirs:
        assert [each["id"] for each in theirs.poll().json] == [command]


# --- extensions --------------------------------------------------------------------------------


def test_a_long_poll_ends_when_a_command_comes(subject: Subject) -> None:
    """With the extension it waits for the command; without, `[]` comes at once."""
    client = subject.client
    attempt = client.sign("GET", f"/api/runs/{subject.run_id}/commands?wait=60")
    client.connection.request(attempt.method, attempt.path, headers=attempt.headers)
    if not subject.is_extended:
        assert json.loads(client.connection.getresponse().read()) == []
        return
    assert client.connection.sock is not None
    assert select.select([client.connection.sock], [], [], 0.2)[0] == []

    command_id = subject.gateway.stop(subject.run_id)

    [command] = json.loads(client.connection.getresponse().read())
    assert command["id"] == command_id


def test_a_long_poll_in_vain_ends_after_its_time(subject: Subject) -> None:
    """`[]` comes after the seconds that were asked for; sooner means that there is no long poll."""
    began = time.monotonic()

    answer = subject.client.poll("?wait=1")

    waited_s = time.monotonic() - began
    assert answer.json == []
    assert not subject.is_extended or waited_s >= 0.9
    assert subject.client.poll().json == []  # on the same connection


def test_a_long_poll_does_not_wait_for_what_is_there(subject: Subject) -> None:
    """A command that waits already is handed out at once."""
    command_id = subject.gateway.stop(subject.run_id)

    assert [each["id"] for each in subject.client.poll("?wait=60").json] == [command_id]


def test_the_same_event_is_stored_once_with_the_extension(subject: Subject) -> None:
    """Same run, sequence and body: once, or twice without it. Another body is another event."""
    client = subject.client
    answers = [client.event("stdout", "same", 1) for _ in range(2)]
    answers.append(client.event("stdout", "other", 1))
    answers += [client.event("info", "unnumbered", 0) for _ in range(2)]
    with closing(own_client(subject.gateway)) as other:
        answers.append(other.event("stdout", "same", 1))
        others = subject.gateway.text(other.run.id)

    assert [answer.status for answer in answers] == [200] * 6
    assert all(answer.json["ok"] is True for answer in answers)
    assert subject.gateway.text(subject.run_id) == f"{'same' * (2 - subject.is_extended)}other"
    assert subject.gateway.text(subject.run_id, "info") == "unnumbered" * 2
    assert others == "same"


def test_the_end_to_end_check(subject: Subject) -> None:
    """An honest `finished` is found to be right, and each false figure is told."""
    subject.client.event("stdout", "abc")
    subject.client.event("info", "of no number", 0)
    subject.client.event("marker", json.dumps(finished(["abc"])))
    with closing(own_client(subject.gateway)) as liar:
        liar.event("stdout", "abc")
        liar.event("marker", json.dumps({**finished(["abd"]), "events": 2}))
        told = subject.gateway.verify_finished(liar.run.id)

    assert subject.gateway.verify_finished(subject.run_id) == []
    assert [each.split(":")[0] for each in told][:2] == ["events", "sha256"]
    if isinstance(subject.gateway, EmbeddedRecord):
        assert told[2].startswith("the gateway's verdict")  # its own, on its page
