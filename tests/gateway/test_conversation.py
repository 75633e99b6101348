"""What a run asks, as the gateway keeps and shows it; and the answers that it takes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.storage.questions import MAX_OPEN, MAX_WAITING, MAX_WORDS
from testing.gateways.embedded_gateway import Answer, EmbeddedGateway
from testing.gateways.gateway_records import Run
from testing.gateways.operator import DIGEST, asked_marker

STARTED = {
    "event": "started",
    "runner": "claude",
    "mode": "print",
    "commands": ["pwd"],
    "listens": True,
    "remoteAnswers": True,
    "remoteInput": True,
    "stays": False,
    "modes": ["default", "acceptEdits"],
}


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway without TLS and without a rate limit, shared: each test has runs of its own."""
    with EmbeddedGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def run(gw: EmbeddedGateway) -> Run:
    """A run that asks."""
    return begin(gw)


def begin(gw: EmbeddedGateway, **fields: Any) -> Run:
    """Create a run and let it begin."""
    run = gw.create_run("fix it")
    assert gw.send_marker(run, {**STARTED, **fields}).status == 200
    return run


def question(question_id: str = "q1", **fields: Any) -> dict[str, Any]:
    """Return the marker of a permission."""
    told = {
        "title": "Run the tests",
        "reason": "it is not allowed yet",
        "input": {"command": "pytest -q", "timeout": 5},
        "scopes": [{"id": "s1", "label": "allow Bash(pytest:*)"}],
    }
    return asked_marker(question_id, **{**told, **fields})


CHOICES = [
    {
        "question": "Which?",
        "header": "Choice",
        "multiSelect": False,
        "options": [{"label": "A", "description": "the first"}, {"label": "B", "description": ""}],
    },
    {
        "question": "What else?",
        "header": "",
        "multiSelect": True,
        "options": [{"label": str(number), "description": ""} for number in range(3)],
    },
]


def ask(gw: EmbeddedGateway, run: Run, *args: Any, **fields: Any) -> None:
    """Let a run ask something."""
    assert gw.send_marker(run, question(*args, **fields)).status == 200


def conversation(gw: EmbeddedGateway, run: Run) -> dict[str, Any]:
    """Return what the API says."""
    answer = gw.api("GET", f"/api/runs/{run.id}/conversation")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json()
    return found


def open_ids(gw: EmbeddedGateway, run: Run) -> list[str]:
    """Return the ids of the open questions."""
    return [card["id"] for card in conversation(gw, run)["open"]]


def answer(gw: EmbeddedGateway, run: Run, **body: Any) -> Answer:
    """Answer a question as the page does."""
    whole = {"id": "q1", "digest": DIGEST, "decision": "allow", **body}
    return gw.api("POST", f"/api/runs/{run.id}/answer", whole)


def sent(gw: EmbeddedGateway, run: Run) -> list[str]:
    """Return the commands that wait for the runner."""
    listed = gw.send("GET", f"/api/runs/{run.id}/commands", run=run).json()
    return [each["command"] for each in listed]


def sent_answer(gw: EmbeddedGateway, run: Run) -> Any:
    """Return what the runner gets as an answer."""
    (command,) = sent(gw, run)
    assert command.startswith("__ANSWER__:")
    return json.loads(command[len("__ANSWER__:") :])


# --- what is kept and shown ----------------------------------------------------------------------


def test_the_health_check_says_that_there_are_cards(gw: EmbeddedGateway) -> None:
    """A runner looks there before it sends questions as markers."""
    assert "answers" in gw.request("GET", "/api/health").json()["extensions"]


def test_a_question_is_shown_until_it_is_answered(gw: EmbeddedGateway, run: Run) -> None:
    """As a card with all that the marker says; then as what became of it."""
    ask(gw, run)
    (card,) = conversation(gw, run)["open"]

    assert card.pop("event_id") == gw.run(run)["last_event_id"]
    assert card.pop("asked_at") > 0
    assert card == {
        "id": "q1",
        "code": "K7Q2X",
        "digest": DIGEST,
        "kind": "permission",
        "tool": "Bash",
        "title": "Run the tests",
        "agent": "",
        "reason": "it is not allowed yet",
        "plan": "",
        "diff": "",
        "fields": [{"name": "command", "text": "pytest -q"}, {"name": "timeout", "text": "5"}],
        "questions": [],
        "input_characters": None,
        "hidden": False,
        "whole": True,
        "defaults_to_no": False,
        "until": None,
        "scopes": [{"id": "s1", "label": "allow Bash(pytest:*)"}],
    }
    assert gw.run(run)["open_questions"] == 1
    gw.send_marker(
        run,
        {"event": "answered", "id": "q1", "decision": "deny", "by": "keyboard", "message": "no"},
    )
    after = conversation(gw, run)
    assert after["open"] == []
    (closed,) = after["closed"]
    told = ("code", "decision", "by", "message", "tool", "summary")
    assert [closed[name] for name in told] == [
        "K7Q2X",
        "deny",
        "keyboard",
        "no",
        "Bash",
        "pytest -q",
    ]
    assert gw.run(run)["open_questions"] == 0


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        ({"event": "withdrawn", "id": "q1", "reason": "interrupted"}, "interrupted"),
        ({"event": "finished", "exitCode": 0}, "ended"),
    ],
)
def test_no_card_is_left_when_nobody_waits_for_the_answer(
    gw: EmbeddedGateway, run: Run, marker: dict[str, Any], reason: str
) -> None:
    """It is withdrawn, or the run ends without a word about it."""
    ask(gw, run)
    gw.send_marker(run, marker)

    after = conversation(gw, run)

    assert after["open"] == []
    assert [(each["decision"], each["reason"]) for each in after["closed"]] == [(None, reason)]


def test_open_questions_outlive_a_restart_and_much_output(tmp_path: Path) -> None:
    """However many events have come since."""
    with EmbeddedGateway(tmp_path) as own:
        run = begin(own)
        ask(own, run, "q1")
        ask(own, run, "q2", kind="plan", tool="ExitPlanMode", plan="# Do it", input={})
        own.send_marker(run, {"event": "queued", "id": "m1", "text": "and then this"})
        own.send_events(run, (f"line {number}\n" for number in range(1_500)))
        own.kill()
        own.start()

        after = conversation(own, run)

        assert [(card["id"], card["kind"]) for card in after["open"]] == [
            ("q1", "permission"),
            ("q2", "plan"),
        ]
        assert after["open"][1]["plan"] == "# Do it"
        assert [(each["id"], each["text"]) for each in after["waiting"]] == [
            ("m1", "and then this")
        ]


def test_messages_wait_until_they_are_read_or_taken_back(gw: EmbeddedGateway, run: Run) -> None:
    """The number of them is known to the list of runs."""
    for number in (1, 2, 3):
        gw.send_marker(run, {"event": "queued", "id": f"m{number}", "text": f"message {number}"})
    assert gw.run(run)["waiting_messages"] == 3
    gw.send_marker(run, {"event": "taken", "id": "m1", "text": "message 1"})
    gw.send_marker(run, {"event": "taken back", "id": "m3", "text": "message 3"})

    assert [each["text"] for each in conversation(gw, run)["waiting"]] == ["message 2"]
    path = f"/api/runs/{run.id}/take-back"
    assert gw.api("POST", path, {"id": "m3"}).status == 409
    assert gw.api("POST", path, {"id": "m2"}).status == 202
    assert sent(gw, run) == ["__TAKE_BACK__:m2"]


def test_a_viewer_is_told_at_once(gw: EmbeddedGateway, run: Run) -> None:
    """The news about the run say that something is open, and by which event that changed."""
    with gw.follow(f"/api/runs/{run.id}/stream?after={gw.run(run)['last_event_id']}") as stream:
        ask(gw, run)
        (frame,) = stream.take(1, "run")

        assert frame.data["open_questions"] == 1
        assert frame.data["talk_event_id"] == conversation(gw, run)["event_id"]


def test_the_runs_that_wait_are_found_however_old(tmp_path: Path) -> None:
    """Also behind many newer ones, and only while they run."""
    with EmbeddedGateway(tmp_path) as own:
        asking, waiting, ended = begin(own), begin(own), begin(own)
        ask(own, asking)
        own.send_marker(waiting, {"event": "state", "state": "waiting"})
        ask(own, ended)
        own.send_marker(ended, {"event": "finished", "exitCode": 0})
        for _ in range(3):
            begin(own)

        found = own.api("GET", "/api/runs?state=waiting").json()

        assert [run["id"] for run in found["runs"]] == [waiting.id, asking.id]
        assert found["next"] is None


# --- what a run may not do ------------------------------------------------------------------------

WRONG: list[dict[str, Any]] = [
    {"id": None},
    {"id": 7},
    {"id": ["q1"]},
    {"id": ""},
    {"id": "x" * 51},
    {"id": "../q1"},
    {"id": "q1\n"},
    {"digest": None},
    {"digest": {}},
    {"digest": ""},
    {"digest": "d" * 5_000},
    {"kind": "order"},
    {"kind": None},
    {"kind": ["permission"]},
]


@pytest.mark.parametrize("fields", WRONG, ids=lambda fields: str(fields)[:30])
def test_what_cannot_be_answered_is_no_question(
    gw: EmbeddedGateway, run: Run, fields: dict[str, Any]
) -> None:
    """It is stored as the event that it is, and no card is made of it."""
    assert gw.send_marker(run, question(**fields)).status == 200

    assert conversation(gw, run)["open"] == []
    assert gw.run(run)["open_questions"] == 0


ODD: list[Any] = [None, 7, -1.5, True, "text", [], [1, [2]], {}, {"a": {"b": None}}]


@pytest.mark.parametrize("kind", ["permission", "question", "plan"])
def test_odd_values_are_text_or_left_out(gw: EmbeddedGateway, kind: str) -> None:
    """Of every field, in any type: the card has the shape that the API promises."""
    run = begin(gw)
    names = [name for name in question() if name not in ("event", "id", "digest", "kind")]
    names += ["agent", "plan", "diff", "questions", "inputChars"]
    for place, value in enumerate(ODD):
        ask(gw, run, f"q{place}", kind=kind, **dict.fromkeys(names, value))

    cards = conversation(gw, run)["open"]

    assert len(cards) == len(ODD)
    for card in cards:
        for name in ("tool", "title", "agent", "reason", "plan", "diff", "code"):
            assert isinstance(card[name], str), name
        for name in ("hidden", "whole", "defaults_to_no"):
            assert isinstance(card[name], bool), name
        assert all(isinstance(field["text"], str) for field in card["fields"])
        assert card["scopes"] == []


def test_too_many_and_too_large_questions_are_bounded(gw: EmbeddedGateway, run: Run) -> None:
    """A hundred are open at most; of large ones the first are shown, and the others are counted."""
    for number in range(MAX_OPEN + 5):
        ask(gw, run, f"q{number}", input={"command": "x" * 12_000})
        gw.send_marker(run, {"event": "queued", "id": f"m{number}", "text": "y" * 5_000})

    answer = gw.api("GET", f"/api/runs/{run.id}/conversation")

    shown = answer.json()
    assert 10 < len(shown["open"]) < MAX_OPEN
    assert len(shown["open"]) + shown["more"] == MAX_OPEN
    assert len(shown["waiting"]) == MAX_WAITING
    assert len(answer.body) < 2_000_000
    assert gw.run(run)["open_questions"] == MAX_OPEN
    # One that is not shown yet can be answered all the same, by who knows it.
    late = {"id": f"q{MAX_OPEN - 1}", "digest": DIGEST, "decision": "deny"}
    assert gw.api("POST", f"/api/runs/{run.id}/answer", late).status == 202


def test_what_is_cut_cannot_be_allowed(gw: EmbeddedGateway, run: Run) -> None:
    """Whatever the marker says about being whole."""
    ask(gw, run, input={"command": "x" * 500_000}, whole=True)
    (card,) = conversation(gw, run)["open"]

    assert card["whole"] is False
    assert len(card["fields"][0]["text"]) < 200_000
    refused = answer(gw, run)
    assert (refused.status, "only be denied" in refused.error) == (409, True)
    assert answer(gw, run, decision="deny").status == 202


@pytest.mark.parametrize("mark", ["\u0301", "\u200d", "\u1160"])
def test_what_a_browser_cannot_draw_cannot_be_allowed(
    gw: EmbeddedGateway, run: Run, mark: str
) -> None:
    """The page leaves out marks that are heaped on a letter; a few of them are writing."""
    ask(gw, run, "q1", input={"command": f"echo e{mark * 17}"})
    ask(gw, run, "q2", input={"command": f"echo e{mark * 3}"})

    assert [card["whole"] for card in conversation(gw, run)["open"]] == [False, True]


def test_a_doubled_question_is_the_first_one(gw: EmbeddedGateway, run: Run) -> None:
    """What is shown under an id does not change while it is open."""
    ask(gw, run)
    ask(gw, run, input={"command": "rm -rf /"}, digest="f" * 64)

    (card,) = conversation(gw, run)["open"]

    assert (card["digest"], card["fields"][0]["text"]) == (DIGEST, "pytest -q")


def test_what_is_unknown_closes_nothing(gw: EmbeddedGateway, run: Run) -> None:
    """Markers about questions and messages that there are not, of any type."""
    ask(gw, run)
    for kind in ("answered", "withdrawn", "taken", "taken back", "queued"):
        for value in (*ODD, "q2", "x" * 100):
            assert gw.send_marker(run, {"event": kind, "id": value}).status == 200

    assert open_ids(gw, run) == ["q1"]


def test_a_run_does_not_reach_another_one(gw: EmbeddedGateway, run: Run) -> None:
    """Ids are good within their run alone."""
    other = begin(gw)
    ask(gw, run)
    gw.send_marker(other, {"event": "answered", "id": "q1", "decision": "allow"})

    assert open_ids(gw, run) == ["q1"]
    assert answer(gw, other).status == 409


def test_what_started_says_in_the_wrong_type_allows_nothing(gw: EmbeddedGateway) -> None:
    """Only `true` is true."""
    run = begin(gw, listens="yes", remoteAnswers=1, stays=[True], modes="default")

    found = gw.run(run)

    assert [found[name] for name in ("listens", "remote_answers", "stays", "modes")] == [
        False,
        False,
        False,
        [],
    ]


# --- answers --------------------------------------------------------------------------------------


def test_an_answer_goes_to_the_runner_as_it_was_asked(gw: EmbeddedGateway, run: Run) -> None:
    """With the id and the digest of the marker, and the scope that was offered."""
    ask(gw, run)

    assert answer(gw, run, scope="s1").status == 202

    assert sent_answer(gw, run) == {
        "id": "q1",
        "digest": DIGEST,
        "decision": "allow",
        "scope": "s1",
    }


def test_long_words_pass_in_any_script(gw: EmbeddedGateway, run: Run) -> None:
    """Ten thousand characters of own words, and a message of a hundred thousand."""
    ask(gw, run, kind="question", questions=CHOICES)
    words = "😀" * MAX_WORDS
    assert answer(gw, run, answers=[{"text": words}, {"options": [2, 0]}]).status == 202
    assert sent_answer(gw, run)["answers"] == [{"text": words}, {"options": [0, 2]}]

    message = "\U0001f600" * 100_000
    for _ in range(3):
        assert gw.api("POST", f"/api/runs/{run.id}/input", {"text": message}).status == 202
    assert gw.api("POST", f"/api/runs/{run.id}/stop", {}).status == 202

    # As much as a runner reads of one answer, and what ends the run in any case.
    listed = gw.send("GET", f"/api/runs/{run.id}/commands", run=run)
    commands = [each["command"] for each in listed.json()]
    assert commands[1:] == [f"__INPUT__:{message}", "__STOP__"]
    assert len(listed.body) < 1_048_576


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "q2"}, 409),
        ({"id": 7}, 400),
        ({"digest": "f" * 64}, 409),
        ({"digest": None}, 409),
        ({"decision": "answers"}, 400),
        ({"decision": None}, 400),
        ({"scope": "s2"}, 400),
        ({"scope": ["s1"]}, 400),
        ({"scope": "s1", "decision": "deny"}, 400),
        ({"message": 7}, 400),
        ({"message": "x" * (MAX_WORDS + 1)}, 400),
        ({"message": "\ud800"}, 400),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_answer_is_not_passed_on(
    gw: EmbeddedGateway, run: Run, body: dict[str, Any], status: int
) -> None:
    """It is refused with a sentence, and the question stays open."""
    ask(gw, run)

    refused = answer(gw, run, **body)

    assert refused.status == status
    assert refused.error
    assert sent(gw, run) == []
    assert open_ids(gw, run) == ["q1"]


@pytest.mark.parametrize(
    "answers",
    [
        None,
        [],
        [{"options": [0]}],
        [{"options": [0]}, {"options": []}],
        [{"options": [0]}, {"text": "  "}],
        [{"options": [0]}, {"text": 7}],
        [{"options": [0, 1]}, {"options": [0]}],
        [{"options": [2]}, {"options": [0]}],
        [{"options": [-1]}, {"options": [0]}],
        [{"options": [True]}, {"options": [0]}],
        [{"options": ["0"]}, {"options": [0]}],
        [7, 8],
    ],
    ids=str,
)
def test_each_question_needs_an_answer(gw: EmbeddedGateway, run: Run, answers: Any) -> None:
    """One of its options, several where several may be chosen, or own words."""
    ask(gw, run, kind="question", questions=CHOICES)

    assert answer(gw, run, answers=answers).status == 400
    assert sent(gw, run) == []


def test_an_answer_that_comes_late_is_told_who_was_first(gw: EmbeddedGateway, run: Run) -> None:
    """At the keyboard, by the limit, or nobody at all."""
    for number, marker in enumerate(
        (
            {"event": "answered", "decision": "allow", "by": "keyboard"},
            {"event": "withdrawn", "reason": "interrupted"},
        )
    ):
        ask(gw, run, f"q{number}")
        gw.send_marker(run, {**marker, "id": f"q{number}"})

    assert "by the keyboard" in answer(gw, run, id="q0").error
    assert "withdrawn" in answer(gw, run, id="q1").error
    assert sent(gw, run) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("answer", {"id": "q1", "digest": DIGEST, "decision": "allow"}),
        ("mode", {"mode": "acceptEdits"}),
    ],
)
def test_where_answers_are_not_allowed_there_are_none(
    gw: EmbeddedGateway, path: str, body: dict[str, Any]
) -> None:
    """The owner of the machine decides; what may be typed has nothing to do with it."""
    run = begin(gw, remoteAnswers=False)
    ask(gw, run)

    assert gw.api("POST", f"/api/runs/{run.id}/{path}", body).status == 409
    assert sent(gw, run) == []


def test_only_an_offered_mode_is_passed_on(gw: EmbeddedGateway, run: Run) -> None:
    """Nothing above what the run was started with."""
    path = f"/api/runs/{run.id}/mode"

    assert gw.api("POST", path, {"mode": "bypassPermissions"}).status == 409
    assert gw.api("POST", path, {"mode": "acceptEdits"}).status == 202
    assert sent(gw, run) == ["__MODE__:acceptEdits"]


@pytest.mark.parametrize("path", ["answer", "mode", "take-back"])
def test_a_stranger_and_another_page_answer_nothing(
    gw: EmbeddedGateway, run: Run, path: str
) -> None:
    """The cookie alone is not enough, nor is a session that another site uses."""
    ask(gw, run)
    session = gw.log_in()
    ours = {**session, "Origin": f"http://127.0.0.1:{gw.port}", "Content-Type": "application/json"}
    target = f"/api/runs/{run.id}/{path}"
    body = json.dumps({"id": "q1", "digest": DIGEST, "decision": "allow"}).encode()

    for headers, status in (
        ({"Content-Type": "application/json"}, 401),
        ({name: value for name, value in ours.items() if name != "X-Page-Key"}, 401),
        ({**ours, "Origin": "https://evil.example"}, 403),
        ({**ours, "Content-Type": "text/plain"}, 403),
    ):
        assert gw.request("POST", target, body, headers).status == status
    assert sent(gw, run) == []
    if path == "answer":
        assert gw.request("POST", target, body, ours).status == 202


def test_the_audit_says_who_answered_what(gw: EmbeddedGateway, run: Run) -> None:
    """The code and the decision, and none of the words, which may be secret."""
    ask(gw, run)
    answer(gw, run, decision="deny", message="the password is swordfish")
    answer(gw, run, scope="s1")
    for text in ("allow k7q2x run", "allow me to say: the password is swordfish"):
        assert gw.api("POST", f"/api/runs/{run.id}/input", {"text": text}).status == 202
    (first, second, *rest) = gw.send("GET", f"/api/runs/{run.id}/commands", run=run).json()
    for command in (first, second, *rest):
        path = f"/api/runs/{run.id}/commands/{command['id']}/ack"
        assert gw.send("POST", path, {"result": "Answered: deny"}, run).status == 200

    with closing(sqlite3.connect(gw.database_file)) as database:
        noted = database.execute(
            "SELECT address, actor, action, detail FROM audit WHERE run_id = ? ORDER BY number",
            (run.id,),
        ).fetchall()

    assert noted[1:] == [
        ("127.0.0.1", "token", "answer", "K7Q2X: deny"),
        ("127.0.0.1", "token", "answer", "K7Q2X: allow, for this run: allow Bash(pytest:*)"),
        ("127.0.0.1", "token", "answer", "K7Q2X: allow, typed"),
        ("127.0.0.1", "token", "input", None),
    ]
    # What was said is kept no longer than it takes to hand it over.
    kept = gw.api("GET", f"/api/runs/{run.id}/history").json()["commands"]
    assert [each["command"] for each in kept] == ["__ANSWER__:"] * 2 + ["__INPUT__:"] * 2
    files = gw.database_file.parent.glob("gateway.db*")
    assert not any(b"swordfish" in file.read_bytes() for file in files if file.suffix == ".db")
