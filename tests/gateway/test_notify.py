"""Notifications: what services get, when they get nothing, and that nothing waits for them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config import granted
from gateway import presence
from gateway.assembly import Gateway
from gateway.notify import notifier as notify
from gateway.notify import words
from gateway.serving.hosts import find_hosts
from gateway.settings import (
    AUDIT_DAYS,
    DATABASE_URL,
    DRAIN_SECONDS,
    FILES_DAYS,
    FILES_URL,
    GROUPS_HEADER,
    LOG,
    METRICS,
    NOTIFY,
    NOTIFY_QUIET,
    OUTPUT_DAYS,
    OWN,
    RATE_LIMIT,
    RETENTION_DAYS,
    ROLES,
    SIGN_IN_HEADER,
    TRUSTED_PROXIES,
    Settings,
)
from testing.gateways.embedded_gateway import EmbeddedGateway, finished
from testing.gateways.gateway_records import Run
from testing.gateways.operator import asked_marker
from testing.gateways.receiver import Receiver
from testing.programs import processes
from testing.programs.runner import run_to_end
from testing.waiting import eventually

# Of what the addresses in these tests have; nobody may see it.
TOPIC = "my-topic-of-32-letters-and-digits"
STARTED = {"event": "started", "runner": "claude", "mode": "print", "remoteAnswers": True}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A service."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def other() -> Iterator[Receiver]:
    """Another service."""
    with Receiver() as receiver:
        yield receiver


def begin(gw: EmbeddedGateway, name: str) -> Run:
    """Create a run and let it begin."""
    run = gw.create_run(name)
    assert gw.send_marker(run, STARTED).status == 200
    return run


def ask(gw: EmbeddedGateway, run: Run, question_id: str, command: str) -> None:
    """Let a run ask for a permission."""
    marker = asked_marker(question_id, tool="Bash", input={"command": command})
    assert gw.send_marker(run, marker).status == 200


def titles(receiver: Receiver) -> list[str]:
    """Return the titles of what a service got, sorted."""
    return sorted(title for title, _ in receiver.messages)


def services(gw: EmbeddedGateway) -> dict[str, dict[str, Any]]:
    """Return, after a moment, what the page is told of each service."""
    time.sleep(0.2)
    told = gw.api("GET", "/api/notifications").json()["services"]
    return {service["name"]: service for service in told}


def test_one_message_for_each_wait(tmp_path: Path, receiver: Receiver, other: Receiver) -> None:
    """To every service, with a link to the run; none for what is answered or looked at, nor for
    what a restarted gateway has told before.
    """
    addresses = f"json://127.0.0.1:{receiver.port}/hook, ntfy://127.0.0.1:{other.port}/{TOPIC}"
    public = "https://example.org/runner"
    own = EmbeddedGateway(tmp_path, "--public-url", public, env={NOTIFY: addresses})
    with own:
        worker = own.request("GET", "/runner/static/service-worker.js")
        assert worker.headers["service-worker-allowed"] == "/runner/"
        asking, waiting, answered, watched, failing, short = (
            begin(own, name)
            for name in ("asking", "waiting", "answered", "watched", "failing", "short")
        )

        def look() -> None:
            time.sleep(0.2)
            told = {"page": "p1", "visible": True}
            assert own.api("POST", f"/api/runs/{watched.id}/looks", told).status == 200

        def got(service: Receiver, count: int) -> bool:
            look()  # as the page does
            return len(service.requests) >= count

        look()
        ask(own, watched, "q1", "make")
        ask(own, answered, "q1", "make")
        own.send_marker(answered, {"event": "answered", "id": "q1", "decision": "deny"})
        ask(own, asking, "q1", "make\u202e test  \n now")
        ask(own, asking, "q2", "make docs")
        own.send_marker(waiting, {"event": "state", "state": "waiting"})
        own.send_marker(failing, finished([], 3))
        own.send_marker(short, finished([]))

        first = ["Asks you: asking", "Failed: failing", "Waits for you: waiting"]
        for service in (receiver, other):
            service.wait_for(partial(got, service, 3))
            assert titles(service) == first
        text = dict(receiver.messages)["Asks you: asking"]
        assert text == f"2 questions; the first: Bash make test now\n{public}/runs/{asking.id}"
        assert not any("X-Icon" in body["headers"] for _, body in other.requests)
        assert dict(receiver.messages) == dict(other.messages)
        assert {body["topic"] for _, body in other.requests} == {TOPIC}
        assert {body["headers"]["X-Click"] for _, body in other.requests} == {
            f"{public}/runs/{run.id}" for run in (asking, waiting, failing)
        }

        def all_is_settled() -> None:
            look()
            assert all(each["sent_at"] and not each["waiting"] for each in services(own).values())

        eventually(all_is_settled, 30)
        own.send_marker(watched, {"event": "answered", "id": "q1", "decision": "deny"})
        own.stop()
        own.start()
        ask(own, asking, "q3", "make clean")
        for service in (receiver, other):
            service.wait_for(partial(got, service, 4))
            assert titles(service) == sorted([*first, "Asks you: asking"])
            assert service.messages[-1][1].startswith("Bash make clean\n")


def test_a_service_that_fails_is_told_and_holds_up_nothing(
    tmp_path: Path, receiver: Receiver, other: Receiver
) -> None:
    """One never answers, one sends its messages elsewhere: the page names both by their scheme, and
    the run goes on. What did not arrive is tried again, and arrives once.
    """
    addresses = f"json://127.0.0.1:{receiver.port}/{TOPIC} ntfy://127.0.0.1:{other.port}/{TOPIC}"
    receiver.answer, other.answer = 0, 302
    other.where = f"http://127.0.0.1:{receiver.port}/elsewhere"
    own = EmbeddedGateway(tmp_path, env={NOTIFY: addresses})
    with own:
        run = begin(own, "asking")
        ask(own, run, "q1", f"curl https://example.org/{TOPIC}")
        other.wait_for(lambda: bool(other.requests))
        own.send_events(run, map(str, range(50)))

        def both_are_told() -> None:
            told = {name: service["problem"] for name, service in services(own).items()}
            assert told == {"json": "no answer", "ntfy": "it answered 302"}

        eventually(both_are_told, 60)
        assert all(path != "/elsewhere" for path, _ in receiver.requests)
        arguments = [*map(processes.describe, [own.pid, *processes.descendants(own.pid)])]
        assert own.api("POST", "/api/notifications/test", {}).status == 202

        def tests_are_told() -> None:
            tests = {name: service["test"] for name, service in services(own).items()}
            assert tests["ntfy"] is not None
            assert (tests["ntfy"]["state"], tests["ntfy"]["problem"]) == (
                "failed",
                "it answered 302",
            )

        eventually(tests_are_told, 30)
        answered = begin(own, "answered meanwhile")
        ask(own, answered, "q1", "make")

        def two_wait() -> None:
            assert services(own)["ntfy"]["waiting"] == 2

        eventually(two_wait, 30)
        own.send_marker(answered, {"event": "answered", "id": "q1", "decision": "deny"})
        other.answer = 200
        # With a test that goes well, what waits goes too.
        assert own.api("POST", "/api/notifications/test", {}).status == 202

        def it_is_well() -> None:
            told = services(own)["ntfy"]
            assert (told["problem"], told["waiting"]) == (None, 0)

        eventually(it_is_well, 60)
        assert set(titles(other)) == {"Asks you: asking", "claude-runner: a test"}
        assert other.messages[-1][0] == "Asks you: asking"
        assert TOPIC not in json.dumps(other.messages)  # the run has said it: it is hidden there
        said = [*arguments, own.log, json.dumps(services(own)), json.dumps(own.events(run))]
    stored = b"".join(path.read_bytes() for path in own.data_dir.rglob("*") if path.is_file())
    assert not [text for text in said if TOPIC in text]
    assert TOPIC.encode() not in stored


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        (NOTIFY, f"json://127.0.0.1 file:///{TOPIC}", "address 2 of 2 is none that apprise"),
        (NOTIFY, f"syslog://{TOPIC}", "its address is none that apprise"),
        (NOTIFY_QUIET, "22-7", "write the hours of a day, such as 22:00-07:00"),
    ],
)
def test_a_bad_setting_is_one_sentence(tmp_path: Path, setting: str, value: str, said: str) -> None:
    """At the start, and without the address."""
    own = EmbeddedGateway(tmp_path, env={setting: value})

    result = run_to_end(own.command(), own.environ, within_s=100)

    (line,) = result.stderr.decode().splitlines()
    assert result.returncode == 1
    assert line.startswith(f"claude-runner: {setting}")
    assert said in line
    assert TOPIC not in line


def test_a_project_cannot_say_where_messages_go() -> None:
    """Nor anything of the gateway: a `.env` that came with it is refused with one of these."""
    names = {
        DATABASE_URL: "sqlite:///x",
        FILES_URL: "file:///x",
        NOTIFY: "json://example.org",
        NOTIFY_QUIET: "22:00-07:00",
        RATE_LIMIT: "0",
        RETENTION_DAYS: "1",
        DRAIN_SECONDS: "10",
        LOG: "json",
        METRICS: "127.0.0.1:9464",
        TRUSTED_PROXIES: "127.0.0.1",
        OUTPUT_DAYS: "1",
        FILES_DAYS: "1",
        AUDIT_DAYS: "1",
        SIGN_IN_HEADER: "X-Forwarded-Email",
        GROUPS_HEADER: "X-Groups",
        ROLES: "admin=*",
    }

    assert set(granted(OWN, names)) == {setting.variable for setting in OWN} == names.keys()


# --- time ----------------------------------------------------------------------------------------


def test_quiet_hours_and_silence(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In quiet hours nothing comes; at their end one message has what is still open, what has
    failed, and which runner has not been heard of.
    """
    for module in (notify, presence):
        monkeypatch.setattr(module, "SILENT_S", 1.0)  # in place of minutes
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    minute = time.gmtime().tm_hour * 60 + time.gmtime().tm_min
    quiet = words.QuietHours((minute - 60) % 1440, (minute + 60) % 1440)
    settings = Settings(
        data_dir=tmp_path,
        env_file=tmp_path / "env",
        hmac_secret="x" * 32,
        admin_token="y" * 32,
        files_url="",
        database_url=f"sqlite:///{tmp_path}/gateway.db",
        rate_limit=0,
        output_days=0,
        files_days=0,
        audit_days=0,
        redact_patterns=None,
        notify=(f"json://127.0.0.1:{receiver.port}",),
        notify_quiet=quiet,
        runner_url="",
        runner_allows_self_signed=False,
        notes=(),
    )
    hosts = find_hosts("127.0.0.1", "http", None)
    with Gateway(settings, hosts, ("127.0.0.1", 0), None) as gateway:
        own = EmbeddedGateway(tmp_path)
        own.env_file.write_text(f"HMAC_SECRET={settings.hmac_secret}\n")
        (tmp_path / "token").write_text(settings.admin_token)
        own.told = {"port": gateway.port, "admin_token_file": str(tmp_path / "token")}
        silent, failing, answered = (begin(own, name) for name in ("silent", "failing", "answered"))
        ask(own, answered, "q1", "make")
        own.send_marker(failing, finished([], 1))
        own.send_marker(answered, {"event": "answered", "id": "q1", "decision": "deny"})
        own.send_marker(answered, finished([]))
        # Open pages are told at once, whatever the hour is; one that was away gets what it missed.
        with own.follow(f"/api/runs/{silent.id}/stream?noticed=1") as stream:
            while stream.take(1, "notice")[0].data["title"] != "Silent: silent":
                pass
        assert own.api("POST", "/api/notifications/test", {}).status == 202
        receiver.wait_for(lambda: bool(receiver.requests))
        assert titles(receiver) == ["claude-runner: a test"]

        monkeypatch.setenv("TZ", "UTC+6")  # the hours are over
        time.tzset()
        receiver.wait_for(lambda: len(receiver.requests) > 1)

        # The run's page and the list say so too, and let go of it.
        assert own.api("GET", f"/api/runs/{silent.id}").json()["silent"] is True
        working = own.api("GET", "/api/list?stage=working").json()["groups"][0]["runs"]
        assert [(line["id"], line["silent"]) for line in working] == [(silent.id, True)]
        deleted = own.api("POST", "/api/runs/delete", {"ids": [silent.id]}).json()
        assert deleted == {"removed": [silent.id], "refused": []}

    ((title, text),) = receiver.messages[1:]
    monkeypatch.undo()
    time.tzset()
    assert title == "2 runs have news"
    *lines, link = text.splitlines()
    assert sorted(line.partition(".")[0] for line in lines) == ["Failed: failing", "Silent: silent"]
    assert link == f"http://localhost:{gateway.port}/"


@pytest.mark.parametrize(
    ("text", "at", "is_quiet"),
    [
        ("22:00-07:00", "21:59", False),
        ("22:00-07:00", "22:00", True),
        ("22:00-07:00", "06:59", True),
        ("22:00-07:00", "07:00", False),
        ("12:30 - 13:00", "12:45", True),
        ("12:30 - 13:00", "13:00", False),
    ],
)
def test_quiet_hours(text: str, at: str, is_quiet: bool) -> None:
    """They may go over midnight; their end is not in them."""
    moment = time.mktime(time.strptime(f"2026-06-01 {at}", "%Y-%m-%d %H:%M"))

    assert words.parse_quiet_hours(text).include(moment) is is_quiet


@pytest.mark.parametrize("text", ["", "22:00", "24:00-07:00", "7:00-8:00", "22:00-22:00", "a-b"])
def test_hours_that_are_none(text: str) -> None:
    """They are refused."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        words.parse_quiet_hours(text)


def test_addresses() -> None:
    """Commas and blanks are between them; a comma inside one is part of it."""
    text = " ntfy://a/b,json://c\n mailto://x:y@example.org?to=a@b.c,d@e.f , tgram://1:2/3, "

    assert words.split_addresses(text) == (
        *("ntfy://a/b", "json://c", "mailto://x:y@example.org?to=a@b.c,d@e.f", "tgram://1:2/3"),
    )
    assert words.split_addresses("") == ()
    found = words.secrets_of([f"ntfys://user:password-of-mine-1@ntfy.example.org/{TOPIC}/docs"])
    assert found >= {TOPIC, "password-of-mine-1"}
    assert not found & {"ntfy.example.org", "docs", "user"}
