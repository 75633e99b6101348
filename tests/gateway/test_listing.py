"""The list of runs: its groups, its filters, its search, and what an operator does to a run."""

from __future__ import annotations

import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import text

from gateway.admission import Admitted
from gateway.listing.runs import Listing
from gateway.listing.text_index import TextIndex, cut, excerpt, plain
from gateway.notify.words import ended
from gateway.storage.store import RunFullError
from testing.gateways.embedded_gateway import EmbeddedGateway, finished
from testing.gateways.embedded_store import OpenStore
from testing.gateways.gateway_records import Run
from testing.gateways.waiting_folder import WaitingFolder
from testing.waiting import eventually

STARTED = {
    "event": "started",
    "runner": "claude",
    "mode": "print",
    "workingDir": "/srv/shop",
    "branch": "main",
    "prompt": "fix it",
    "sessionId": "5e551011",
}
ASKED = {"event": "asked", "id": "q1", "digest": "d", "kind": "permission", "tool": "Bash"}


@pytest.fixture
def gw(tmp_path: Path) -> Iterator[EmbeddedGateway]:
    """A gateway whose list has the test's own runs alone."""
    with EmbeddedGateway(tmp_path) as gateway:
        yield gateway


def begin(gw: EmbeddedGateway, prompt: str = "fix it", **marker: Any) -> Run:
    """Make a run that has begun."""
    run = gw.create_run(prompt)
    assert gw.send_marker(run, {**STARTED, **marker}, 1).status == 200
    return run


def end(gw: EmbeddedGateway, run: Run, code: int = 0, **marker: Any) -> None:
    """End it."""
    assert gw.send_marker(run, {**finished([]), "exitCode": code, **marker}).status == 200


def listed(gw: EmbeddedGateway, **query: Any) -> dict[str, Any]:
    """Return the list."""
    answer = gw.api("GET", f"/api/list?{urlencode(query)}")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json()
    return found


def ids(gw: EmbeddedGateway, **query: Any) -> set[str]:
    """Return the runs that the list shows."""
    return {run["id"] for group in listed(gw, **query)["groups"] for run in group["runs"]}


def post(gw: EmbeddedGateway, run: Run, action: str, **body: Any) -> Any:
    """Do something to a run, and return what it answers."""
    answer = gw.api("POST", f"/api/runs/{run.id}/{action}", body)
    assert answer.status in (200, 201), answer
    return answer.json()


def holds(condition: bool) -> None:
    """Fail unless it does; to be waited for."""
    assert condition


def test_a_run_is_where_somebody_looks_for_it(gw: EmbeddedGateway) -> None:
    """Each group is in the order in which its runs came into it, newest first."""
    pending = gw.create_run("not yet")
    asks, waits, works, over = (begin(gw) for _ in range(4))
    end(gw, over, 3, result={"totalCostUsd": 0.25, "denials": 2}, events=7)
    gw.send_marker(waits, {"event": "state", "state": "waiting"})
    gw.send_marker(asks, ASKED)
    groups = {each["stage"]: each for each in listed(gw)["groups"]}

    assert list(groups) == ["needs", "working", "pending", "done"]
    assert {stage: [run["id"] for run in each["runs"]] for stage, each in groups.items()} == {
        "needs": [asks.id, waits.id],
        "working": [works.id],
        "pending": [pending.id],
        "done": [over.id],
    }
    line = groups["done"]["runs"][0]
    assert (line["working_dir"], line["branch"], line["prompt"]) == ("/srv/shop", "main", "fix it")
    assert (line["cost"], line["refused"], line["incomplete"]) == (0.25, 2, True)
    assert (line["exit_code"], line["reason"], line["seen_at"]) == (3, "exited", None)
    counts = {"needs": 2, "working": 1, "pending": 1, "done": 1, "unseen": 1}
    assert listed(gw, state="working")["counts"] == counts

    gw.send_marker(asks, {"event": "withdrawn", "id": "q1", "reason": "ended"})
    assert gw.run(asks)["stage"] == "working"


def test_a_run_that_somebody_has_looked_at_is_not_new(gw: EmbeddedGateway) -> None:
    """Only its end can be seen; who follows the list learns of it; a new end is new."""
    run = begin(gw)
    assert post(gw, run, "seen")["seen_at"] is None
    end(gw, run)
    assert ids(gw, state="unseen") == {run.id}

    with gw.follow("/api/stream") as stream:
        first = post(gw, run, "seen")
        (frame,) = stream.take(1, "run")
    assert time.time() - 60 < frame.data["seen_at"] == first["seen_at"]
    assert post(gw, run, "seen")["seen_at"] == first["seen_at"]
    assert (ids(gw, state="unseen"), listed(gw)["counts"]["unseen"]) == (set(), 0)


def test_the_list_is_filtered_and_paged(gw: EmbeddedGateway) -> None:
    """By state, folder, runner and words, together; pages of a group follow each other."""
    shop = [begin(gw, f"number {number}") for number in range(5)]
    long = gw.create_run("a long prompt " + "and so on " * 200 + "with an end")
    other = begin(gw, "the other", workingDir="/srv/100%_sure", runner="rev", branch="topic/x")
    for run in shop[1:]:
        end(gw, run, 1)
    found: list[str] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        (page,) = listed(gw, stage="done", limit=3, after=page["next"])["groups"]
        found += [run["id"] for run in page["runs"]]
        assert page["count"] == 4

    assert found == [run.id for run in reversed(shop[1:])]
    assert ids(gw, folder="/srv/shop") == {run.id for run in shop}
    assert ids(gw, folder="/srv/shop", state="working") == {shop[0].id}
    assert ids(gw, state="failed", q="number 2") == {shop[2].id}
    assert ids(gw, runner="rev") == ids(gw, q="100%_SURE") == ids(gw, q="topic other") == {other.id}
    assert ids(gw, q="%") == {other.id}
    assert ids(gw, q="with end", state="pending") == {long.id}
    assert ids(gw, q=shop[0].id) == {shop[0].id}
    assert listed(gw)["folders"] == ["/srv/100%_sure", "/srv/shop"]
    assert listed(gw)["runners"] == ["rev", "claude"]
    for wrong in ("state=x", "stage=x", "limit=0", "limit=201", "after=1", f"q={'x' * 201}"):
        assert gw.api("GET", f"/api/list?{wrong}&stage=done").status == 400, wrong


def test_what_runs_print_is_found(gw: EmbeddedGateway) -> None:
    """Words, or their beginnings, whatever colours they have; with the place where they stand."""
    run, other = begin(gw), begin(gw)
    texts = ["it prints \x1b[1mElder\x1b[31mberry\x1b[0m\x1b[5;1Hjam", "\nand straße 東京タワー\n"]
    gw.send_events(run, texts, 2)
    gw.send_events(other, ["nothing\n"], 2)

    eventually(lambda: holds(ids(gw, q="elderb jam") == {run.id}))
    assert ids(gw, q="berry") == set()
    assert ids(gw, q="京タ") == ids(gw, q="STRASSE straße") | {run.id} == {run.id}
    assert ids(gw, q='say "elderberry') == set()
    assert ids(gw, q="elderb\0jam") == ids(gw, q="-elderberry *") == {run.id}
    assert ids(gw, q="eld it") == {run.id}
    assert ids(gw, q="el") == set()  # of two letters the whole word alone
    assert ids(gw, q="elderberry NOT x") == ids(gw, q="text:elderberry") == set()
    (line,) = [each for group in listed(gw, q="elderberry")["groups"] for each in group["runs"]]
    assert line["found"] == "it prints Elderberry jam and straße 東京タワー"
    # A run that has the words in its name and not in its output is found too.
    assert ids(gw, q="fix") == {run.id, other.id}


def test_a_run_gets_a_name(gw: EmbeddedGateway) -> None:
    """In one line; an empty one takes it away; who does it is noted."""
    run = begin(gw)

    assert post(gw, run, "title", title=" The\n shop ")["title"] == "The shop"
    assert ids(gw, q="the shop") == {run.id}
    assert post(gw, run, "title", title="")["title"] is None
    assert gw.api("POST", f"/api/runs/{run.id}/title", {"title": "x" * 201}).status == 400
    assert gw.api("POST", "/api/runs/run_0/title", {"title": "x"}).status == 404
    assert audited(gw, run) == ["create", "title", "title"]


def audited(gw: EmbeddedGateway, run: Run) -> list[str]:
    """Return what was done to a run."""
    with closing(sqlite3.connect(gw.database_file, timeout=30)) as database:
        query = "SELECT action FROM audit WHERE run_id = ? ORDER BY number"
        return [row[0] for row in database.execute(query, (run.id,))]


def test_a_run_that_was_not_started_gets_another_line(gw: EmbeddedGateway) -> None:
    """The old token is dead at once, also if it has been used before; a begun run keeps its own."""
    old = gw.create_run("don't")
    assert gw.send("GET", f"/api/runs/{old.id}/commands", run=old).status == 200

    made = post(gw, old, "start-line")

    new = Run(old.id, made["capabilityToken"])
    assert shlex.split(made["start_command"]) == [
        *(f"CLAUDE_RUNNER_TOKEN={new.token}", "./wrapper/claude-runner", "start"),
        *("--run-id", old.id, "--cmd", "don't"),
    ]
    assert gw.send_marker(old, STARTED, 1).status == 403
    assert gw.run(new)["status"] == "pending"
    assert gw.send_marker(new, STARTED, 1).status == 200
    answer = gw.api("POST", f"/api/runs/{old.id}/start-line", {})
    assert (answer.status, answer.error) == (409, "The run was started already.")
    assert gw.send_event(new, "stdout", "x", 2).status == 200
    assert audited(gw, old) == ["create", "new token"]


def test_a_run_has_one_name(gw: EmbeddedGateway) -> None:
    """Page and list call it the same, and so do notifications: its title, prompt, or what it is."""
    folder = WaitingFolder(gw, "shop").begin(machine="laptop")
    queued = Run(folder.order("queue it").json()["id"], "")
    session, told = gw.create_run(""), gw.create_run("")
    at = {**STARTED, "prompt": "", "mode": "interactive", "workingDir": "/srv/my shop/"}
    assert gw.send_marker(session, at, 1).status == 200
    assert gw.send_marker(told, {**STARTED, "prompt": "what the runner told"}, 1).status == 200
    lines = {each["id"]: each for group in listed(gw)["groups"] for each in group["runs"]}
    for run, name in (
        (queued, "queue it"), (session, "Session in my shop"), (told, "what the runner told"),
    ):  # fmt: skip
        shown = gw.run(run)
        assert (shown["name"], lines[run.id]["name"], ended(shown).name) == (name, name, name)
        post(gw, run, "title", title="Its title")
        assert gw.run(run)["name"] == ended(gw.run(run)).name == "Its title"
    # One that waits for its folder says for which.
    sent = gw.run(queued)["sent_to"], lines[queued.id]["sent_to"], lines[session.id]["sent_to"]
    assert sent == ("shop on laptop", "shop on laptop", None)
    post(gw, queued, "start-line")
    assert gw.run(queued)["sent_to"] is None


def test_a_run_that_is_stopped_before_it_begins(gw: EmbeddedGateway) -> None:
    """The page says so, until somebody asks for its line: then it may begin."""
    run = gw.create_run("stop me")
    assert gw.api("POST", f"/api/runs/{run.id}/stop", {}).status == 202

    assert (gw.run(run)["status"], gw.run(run)["reason"]) == ("pending", "stopped")
    (group,) = listed(gw, q="stop me", stage="pending")["groups"]
    assert [each["reason"] for each in group["runs"]] == ["stopped"]
    made = post(gw, run, "start-line")
    new = Run(run.id, made["capabilityToken"])
    assert gw.run(run)["reason"] is None
    assert gw.send("GET", f"/api/runs/{run.id}/commands", run=new).json() == []
    # A runner that does not know the word begins all the same, and is stopped.
    assert gw.api("POST", f"/api/runs/{run.id}/halt", {}).status == 202
    assert gw.send_marker(new, STARTED, 1).status == 200
    assert (gw.run(run)["status"], gw.run(run)["reason"]) == ("running", None)


def test_a_run_again_and_a_session_that_goes_on(gw: EmbeddedGateway) -> None:
    """A new run in the folder of the old one: with its prompt, or with its session.

    It is started as the old one was, as far as that is known and harmless.
    """
    options = {"ask": "remote", "stay": "30m", "failOnDenial": True, "model": "opus", "x": "y"}
    options.update(output="; ls", maxTime="", permissionMode="bypassPermissions")
    run = begin(gw, "fix it\nall", workingDir="/srv/my shop", options=options)
    post(gw, run, "title", title="Shop")
    again = gw.api("POST", "/api/runs", {"again": run.id}).json()
    on = gw.api("POST", "/api/runs", {"resume": run.id, "command": "and now?"}).json()
    session = gw.api("POST", "/api/runs", {"resume": run.id}).json()
    as_before = ["--ask", "remote", "--stay", "30m", "--fail-on-denial"]
    model = ["--", "--model", "opus"]

    wanted = {
        again["id"]: ["--cmd", "fix it\nall", *as_before, *model],
        on["id"]: ["--cmd", "and now?", "--resume", "5e551011", *as_before, *model],
        # A session at the keyboard asks there.
        session["id"]: ["--resume", "5e551011", *model],
    }
    for made in (again, on, session):
        words = shlex.split(made["start_command"])
        head = ["cd", "/srv/my shop", "&&", f"CLAUDE_RUNNER_TOKEN={made['capabilityToken']}"]
        start = ["./wrapper/claude-runner", "start", "--run-id", made["id"]]
        assert words == [*head, *start, *wanted[made["id"]]]
        # The line that is made later is the same.
        line = post(gw, Run(made["id"], ""), "start-line")["start_command"]
        renewed = shlex.split(line)
        assert renewed[3] != words[3]
        assert renewed[4:] == words[4:]
        shown = gw.run(Run(made["id"], ""))
        assert (shown["title"], shown["working_dir"]) == ("Shop", "/srv/my shop")
    # Resumed, Claude Code keeps its session, and tells no other one.
    begun = Run(on["id"], on["capabilityToken"])
    assert gw.run(begun)["session_id"] == "5e551011"
    unknown = begin(gw, sessionId="--model x")
    for body, status in (
        ({"resume": unknown.id}, 409),
        ({"again": run.id, "resume": run.id}, 400),
        ({"again": "run_0"}, 404),
    ):
        assert gw.api("POST", "/api/runs", body).status == status, body


def test_a_line_that_is_pasted_has_no_keys_in_it(gw: EmbeddedGateway) -> None:
    """What a run told of itself is not typed into the terminal of who repeats it."""
    run = gw.create_run()
    told = {"workingDir": "/srv/\x03\ntouch x\n", "prompt": "a\x1b[201~\rb\x9b\x7f\nc\td"}
    assert gw.send_marker(run, {**STARTED, **told}, 1).status == 200

    made = gw.api("POST", "/api/runs", {"again": run.id}).json()
    line = post(gw, Run(made["id"], ""), "start-line")["start_command"]

    for each in (made["start_command"], line):
        words = shlex.split(each)
        assert (words[1], words[-1]) == ("/srv/ \ntouch x\n", "a [201~ b  \nc\td")


def test_deleted_runs_leave_nothing_behind(gw: EmbeddedGateway) -> None:
    """With all that they had; one that goes on stays. Who looks at them is told."""
    word = "elderberry"
    runs = [begin(gw, f"plan {word}") for _ in range(3)]
    goes_on, pending = begin(gw), gw.create_run(f"plan {word}")
    for run in runs:
        gw.send_events(run, [f"about {word} " * 100], 2)
        gw.send_artifact(run, f"{word}.md", b"# notes\n")
        gw.send_marker(run, {**ASKED, "tool": word}, 3)
        gw.api("POST", f"/api/runs/{run.id}/stop", {})
    eventually(
        lambda: holds(all(line["found"] for line in lines(gw, q=word) if line["started_at"]))
    )
    for run in runs:
        end(gw, run)
    gone = [*(run.id for run in runs), pending.id]

    with gw.follow("/api/stream") as stream, gw.follow(f"/api/runs/{runs[0].id}/stream") as own:
        answer = gw.api("POST", "/api/runs/delete", {"ids": [*gone, goes_on.id, "run_0"]})
        told = stream.take(len(gone), "removed")
        assert [frame.data for frame in told] == [{"ids": [each]} for each in gone]
        assert own.take(1, "removed")[0].data == {"ids": [runs[0].id]}

    assert (answer.status, answer.json()["removed"]) == (200, gone)
    wrong_ids: list[Any] = [None, "run_0", [1], ["\ud800"], []]
    for wrong in wrong_ids:
        assert gw.api("POST", "/api/runs/delete", {"ids": wrong}).status == 400, wrong
    assert {each["id"]: each["error"] for each in answer.json()["refused"]} == {
        goes_on.id: "The run is going on. Stop it first.",
        "run_0": "There is no such run.",
    }
    assert ids(gw) == {goes_on.id}
    for run_id in gone:
        assert gw.api("GET", f"/api/runs/{run_id}").status == 404
    assert gw.send_event(runs[0], "stdout", "late\n", 9).status == 403
    assert audited(gw, runs[0])[-1] == "delete"
    eventually(lambda: holds(rows_of(gw, gone) == 0))
    files = gw.data_dir / "gateway" / "artifacts"
    eventually(lambda: holds(not list(files.glob("*/*"))))
    assert gw.send_event(goes_on, "stdout", "still here\n", 2).status == 200
    gw.stop()
    left = b"".join(path.read_bytes() for path in gw.data_dir.rglob("gateway.db*"))
    assert left.count(word.encode()) == 0


def lines(gw: EmbeddedGateway, **query: Any) -> list[dict[str, Any]]:
    """Return the lines that the list shows."""
    return [run for group in listed(gw, **query)["groups"] for run in group["runs"]]


def rows_of(gw: EmbeddedGateway, gone: list[str]) -> int:
    """Return how many rows of these runs there are, apart from the audit."""
    marks = ", ".join("?" * len(gone))
    with closing(sqlite3.connect(gw.database_file, timeout=30)) as database:
        tables = ("events", "commands", "artifacts", "texts")
        counts = [
            database.execute(f"SELECT count(*) FROM {table} WHERE run_id IN ({marks})", gone)
            for table in tables
        ]
        counts.append(database.execute(f"SELECT count(*) FROM runs WHERE id IN ({marks})", gone))
        rest = database.execute("SELECT count(*) - 1 FROM summaries").fetchone()[0]
        return int(sum(each.fetchone()[0] for each in counts) + rest)


def test_what_was_being_deleted_is_deleted_after_a_crash(tmp_path: Path) -> None:
    """A kill between the answer and the last row: nobody sees the run, and its rows go."""
    with EmbeddedGateway(tmp_path) as gw:
        run = begin(gw)
        gw.send_events(run, (f"line {number}\n" for number in range(50)), 2)
        end(gw, run)
        gw.stop()
        with closing(sqlite3.connect(gw.database_file)) as database, database:
            database.execute("UPDATE summaries SET removed_at = 1")
        gw.start()

        assert ids(gw) == set()
        eventually(lambda: holds(rows_of(gw, [run.id]) == -1))


# --- the index of words ---------------------------------------------------------------------------


def test_a_file_that_comes_after_its_run_was_deleted_is_not_kept(tmp_path: Path) -> None:
    """It was admitted before, and would stay for ever."""
    with OpenStore(tmp_path) as own:
        run_id, _ = own.store.create_run("fix it", None)
        listing = Listing(own.engine, own.writer, TextIndex(own.engine, own.writer))
        assert listing.remove(run_id, also_running=False)
        row = {"id": "art_1", "run_id": run_id, "name": "a.log", "type": "text", "size": 1}

        with pytest.raises(RunFullError):
            own.store.add_artifact(Admitted(run_id, 1, 0.0), {**row, "created_at": 0.0})

        assert own.store.artifacts(run_id) == []


def test_a_piece_of_text() -> None:
    """Sequences go, words stay whole; a text without blanks is cut anywhere."""
    assert plain("a\x1b[31mb\x1b[0m\x1b[2Jc\x1b]0;title\x07d\x00\te\n") == "ab c d \te\n"
    words = "word " * 20_000
    assert "".join(cut(words)) == words
    assert all(piece.endswith("word ") for piece in cut(words))
    assert ["".join(cut("x" * 70_000)), cut(" \n ")] == ["x" * 70_000, []]
    assert excerpt("a" * 100 + " Berry " + "b" * 300, ["berry"]).startswith("…aaa")


def test_without_an_index_of_words_the_text_itself_is_read(tmp_path: Path) -> None:
    """A database that was used without FTS5 meanwhile, and then with it again, finds everything."""
    with OpenStore(tmp_path) as own:
        index = TextIndex(own.engine, own.writer)
        index._has_words = False  # as where SQLite has no FTS5
        add_text(own, "run_1", "elderberry")
        assert found(own, index, "ELDER") == ["run_1"]
        with own.engine.begin() as connection:
            for name in ("texts_added", "texts_removed"):
                connection.execute(text(f"DROP TRIGGER {name}"))
        add_text(own, "run_2", "elderflower")

        again = TextIndex(own.engine, own.writer)

        assert found(own, again, "elder") == ["run_1", "run_2"]
        with own.engine.begin() as connection:
            connection.execute(text("DELETE FROM texts WHERE run_id = 'run_1'"))
        again.forget_removed()
        assert found(own, again, "elder") == ["run_2"]


def add_text(own: OpenStore, run_id: str, words: str) -> None:
    """Put a piece of text where it is looked for."""
    with own.engine.begin() as connection:
        statement = text("INSERT INTO texts (run_id, text) VALUES (:run_id, :words)")
        connection.execute(statement, {"run_id": run_id, "words": words})


def found(own: OpenStore, index: TextIndex, word: str) -> list[str]:
    """Return the runs that have printed a word."""
    with own.engine.connect() as connection:
        return sorted(row.run_id for row in connection.execute(index.pieces_with([word])))
