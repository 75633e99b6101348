"""Where files lie: in a folder and in an object store it is the same."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Protocol

import pytest

from gateway import housekeeping
from gateway.housekeeping import Housekeeping
from gateway.listing.runs import Listing
from gateway.listing.text_index import TextIndex
from gateway.storage.file_store import FolderStore
from gateway.storage.retention import Periods, Retention
from testing.gateways.embedded_gateway import ROOT, EmbeddedGateway, finished, multipart
from testing.gateways.embedded_record import EmbeddedRecord
from testing.gateways.embedded_store import OpenStore
from testing.gateways.gateway_records import Run
from testing.gateways.object_store import Line, Moto, environ_of, moto
from testing.gateways.postgresql import Cluster, cluster, gateways_on
from testing.gateways.signing_client import Client
from testing.programs.runner import plan, run_to_end
from testing.waiting import eventually

DIFF = "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-old\n+new\n"
AWAY = "The gateway cannot reach its files now; try again in a minute."
# Unlike anything that a redactor knows.
LETTERS = "bcdfgkmnpz \n"


class Place(Protocol):
    """A place for files, as a test sees it."""

    environ: dict[str, str]

    def found(self) -> dict[str, int]:
        """Return the size of everything that is there, by run and id."""

    def go_away(self) -> None:
        """Answer no more."""

    def come_back(self) -> None:
        """Answer again, with what was there."""


class FolderPlace:
    """A folder beside the data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "shared files"
        self._folder.mkdir()
        url = self._folder.as_uri()
        self.environ = {"CLAUDE_RUNNER_GATEWAY_FILES_URL": url}

    def found(self) -> dict[str, int]:
        """Return everything that is there."""
        found: dict[str, int] = {}
        for path in self._folder.rglob("*"):
            with suppress(FileNotFoundError):  # it is being removed
                if path.is_file():
                    found[path.relative_to(self._folder).as_posix()] = path.stat().st_size
        return found

    def go_away(self) -> None:
        """Be unmounted."""
        self._folder.rename(self._folder.with_name("away"))

    def come_back(self) -> None:
        """Be mounted."""
        self._folder.with_name("away").rename(self._folder)


class BucketPlace:
    """A prefix in a bucket, at the end of a line."""

    def __init__(self, store: Moto, line: Line) -> None:
        self._store = store
        self._line = line
        self._prefix = f"team/{secrets.token_hex(4)}"
        self.environ = environ_of(line.port, self._prefix)

    def found(self) -> dict[str, int]:
        """Return everything that is there."""
        objects = self._store.objects()
        begin = f"{self._prefix}/"
        return {key[len(begin) :]: objects[key] for key in objects if key.startswith(begin)}

    def go_away(self) -> None:
        """Lose the line."""
        self._line.cut()

    def come_back(self) -> None:
        """Have it again."""
        self._line.mend()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """An object store for the tests of this module."""
    with moto(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(scope="module")
def database() -> Iterator[Cluster]:
    """A PostgreSQL for the tests of this module."""
    with cluster() as running:
        yield running


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, store: Moto, tmp_path: Path) -> Iterator[Place]:
    """Each kind of place."""
    if request.param == "folder":
        yield FolderPlace(tmp_path)
        return
    with Line(store.port) as line:
        yield BucketPlace(store, line)


def delete(gateway: EmbeddedGateway, run: Run) -> None:
    """Delete a run as the page does; it is over, because it was finished."""
    gateway.send_marker(run, finished([]), 1)
    answer = gateway.api("POST", "/api/runs/delete", {"ids": [run.id]})
    assert answer.json()["removed"] == [run.id]


def made_up(size: int) -> bytes:
    """Return text that is not stored otherwise than it came."""
    return bytes(random.Random(size).choices(LETTERS.encode(), k=size))


def test_a_file_comes_back_as_it_was(place: Place, tmp_path: Path) -> None:
    """Whole, in parts, as a view, redacted, and by its id alone; its run takes it along."""
    data = made_up(4_500_000)
    with EmbeddedGateway(tmp_path / "gateway", env=place.environ) as gw:
        run, other = gw.create_run(), gw.create_run()
        uploaded = gw.send_artifact(run, "../../etc/passwd", data).json()
        empty = gw.send_artifact(run, "empty.txt", b"").json()["artifactId"]
        secret = place.environ.get("AWS_SECRET_ACCESS_KEY", gw.secret)
        hidden = gw.send_artifact(run, "a.log", f"it is {secret}.\n".encode()).json()["artifactId"]
        kept = gw.send_artifact(other, "b.log", b"b").json()["artifactId"]
        address = f"/api/artifacts/{uploaded['artifactId']}"

        whole = gw.api("GET", address)
        assert (uploaded["name"], uploaded["size"]) == ("passwd", len(data))
        assert whole.body == data
        assert whole.headers["content-disposition"] == "attachment; filename=passwd"
        for asked, begin, end in (("4300000-4300099", 4_300_000, 4_300_100), ("-7", -7, None)):
            part = gw.api("GET", address, headers={"Range": f"bytes={asked}"})
            assert (part.status, part.body) == (206, data[begin:end])
            assert part.headers["content-range"].endswith("/4500000")
        beyond = gw.api("GET", address, headers={"Range": "bytes=4500000-"})
        assert beyond.status == 416
        again = gw.api("GET", address, headers={"If-None-Match": whole.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        view = gw.api("GET", f"/api/artifacts/{hidden}?view=1")
        assert view.headers["content-type"] == "text/plain; charset=utf-8"
        assert view.body.startswith(b"it is [REDACTED")
        assert gw.api("GET", f"/api/artifacts/{empty}").body == b""
        ids = (uploaded["artifactId"], empty, hidden)
        assert place.found().keys() == {*(f"{run.id}/{each}" for each in ids), f"{other.id}/{kept}"}

        # Each diff takes the place of the one before.
        for _ in range(2):
            assert gw.send_artifact(run, "changes.diff", DIFF.encode()).status == 200
        (changed,) = gw.api("GET", f"/api/runs/{run.id}/changes").json()["files"]
        assert changed["text"].endswith("-old\n+new")
        assert len(place.found()) == 5
        # What is not whole is nothing.
        content_type, body = multipart("cut.txt", data)
        headers = gw.sign("POST", "/api/ingest/artifact", run=run, content_type=content_type)
        assert gw.request("POST", "/api/ingest/artifact", body[:-40], headers).status == 400
        assert len(place.found()) == 5

        delete(gw, run)

        def nothing_is_left() -> None:
            assert place.found().keys() == {f"{other.id}/{kept}"}

        eventually(nothing_is_left)
        assert gw.api("GET", address).status == 404


def test_the_place_is_away(place: Place, tmp_path: Path) -> None:
    """An upload is repeated as it is, and counts once; everything else goes on."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "result.txt").write_bytes(b"result")
    with ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        gw = stack.enter_context(EmbeddedGateway(tmp_path / "gateway", env=place.environ))
        run, old, older = (gw.create_run() for _ in range(3))
        client = stack.enter_context(closing(Client(EmbeddedRecord(gw), run)))
        kept = gw.send_artifact(run, "changes.diff", DIFF.encode()).json()["artifactId"]
        assert gw.send_artifact(old, "a.txt", b"a").status == 200
        waiting = client.upload_attempt("notes.txt", made_up(300_000))
        place.go_away()

        answer = client.send(waiting)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert answer.json == {
            "error": "The place of the files does not answer; try again in a moment."
        }
        for path in (f"/api/artifacts/{kept}", f"/api/runs/{run.id}/changes"):
            told = gw.api("GET", path)
            assert (told.status, told.json()) == (503, {"error": AWAY})

        def health_tells_it() -> None:
            health = gw.request("GET", "/api/health")
            assert (health.status, health.json()["status"]) == (200, "ok")
            assert health.json()["away"] == ["files"]

        eventually(health_tells_it)  # it looks every ten seconds
        assert client.event("stdout", "x", 1).status == 200
        assert len(gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"]) == 1
        delete(gw, old)
        launch = plan(
            EmbeddedRecord(gw),
            ["sh", "-c", "echo hello"],
            folder,
            options=["--artifact", str(folder / "result.txt")],
        )
        running = threads.submit(run_to_end, launch.argv, launch.env)

        def the_runner_waits() -> None:
            assert gw.log.count("/api/ingest/artifact: ") >= 3

        eventually(the_runner_waits)
        place.come_back()

        assert client.send(waiting).status == 200
        assert client.send(waiting).json == {"error": "Nonce already used (replay attack detected)"}
        assert running.result().returncode == 0
        files = {each.name: each.data for each in EmbeddedRecord(gw).artifacts(launch.run.id)}
        assert files.keys() == {"claude.log", "result.txt"}
        assert files["result.txt"] == b"result"
        assert len(gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"]) == 2
        # The next round removes what the last one could not.
        delete(gw, older)

        def the_old_one_is_gone() -> None:
            assert {key.partition("/")[0] for key in place.found()} == {run.id, launch.run.id}

        eventually(the_old_one_is_gone)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert place.environ.get(name, "none") not in gw.log


@pytest.mark.skipif(sys.platform != "linux", reason="only /proc tells of memory without files")
def test_memory_is_bounded(place: Place, tmp_path: Path) -> None:
    """A large file goes through in both directions, and is never in memory."""
    data = made_up(1_000_000) * 32
    with EmbeddedGateway(tmp_path / "gateway", env=place.environ) as gw:
        run = gw.create_run()
        first = gw.send_artifact(run, "a.txt", b"x").json()["artifactId"]
        assert gw.api("GET", f"/api/artifacts/{first}").body == b"x"
        before, most, is_over = anonymous_bytes(gw.pid), [0], threading.Event()

        def watch() -> None:
            while not is_over.wait(0.01):
                most[0] = max(most[0], anonymous_bytes(gw.pid))

        with ThreadPoolExecutor(1) as threads:
            watching = threads.submit(watch)
            try:
                sent = gw.send_artifact(run, "b.txt", data).json()["artifactId"]
                is_same = gw.api("GET", f"/api/artifacts/{sent}").body == data
            finally:
                is_over.set()
            watching.result()

        assert is_same
        assert most[0] - before < 30_000_000


def anonymous_bytes(pid: int) -> int:
    """Return what a process has in memory besides mapped files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_the_store_is_killed_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    """What it had not whole is not there; when it is back, the same upload is taken."""
    data = made_up(3_000_000)
    with ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        own = stack.enter_context(moto(tmp_path))
        line = stack.enter_context(Line(own.port))
        gw = stack.enter_context(
            EmbeddedGateway(tmp_path / "gateway", env=environ_of(line.port, "x"))
        )
        run = gw.create_run()
        client = stack.enter_context(closing(Client(EmbeddedRecord(gw), run)))
        attempt = client.upload_attempt("notes.txt", data)
        line.holds_after = 500_000
        sending = threads.submit(client.send, attempt)
        assert line.held.wait(30)
        # Everything else goes on meanwhile.
        assert gw.request("GET", "/api/health").status == 200
        assert gw.send_event(run, "stdout", "x", 1).status == 200
        own.kill()
        line.cut()

        assert sending.result().status == 503
        assert gw.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"] == []
        line.holds_after = None
        own.start()
        line.mend()
        assert own.objects() == {}
        answer = client.send(attempt)
        assert answer.status == 200
        assert list(own.objects().values()) == [len(data)]
        assert gw.api("GET", f"/api/artifacts/{answer.json['artifactId']}").body == data


def test_two_gateways_have_the_same_files(place: Place, database: Cluster, tmp_path: Path) -> None:
    """What was uploaded at one is read at the other, and removed by whichever has the chores."""
    one, other = gateways_on(database.make_database(), tmp_path / "pair", 2)
    for each in (one, other):
        each.environ.update(place.environ)
    with one, other:
        run = one.create_run()
        sent = one.send_artifact(run, "a.txt", b"from one").json()["artifactId"]
        assert other.api("GET", f"/api/artifacts/{sent}").body == b"from one"
        other.stop()
        other.start()
        back = other.send_artifact(run, "b.txt", b"from the other").json()["artifactId"]
        assert one.api("GET", f"/api/artifacts/{back}").body == b"from the other"
        delete(other, run)

        def nothing_is_left() -> None:
            assert place.found() == {}

        eventually(nothing_is_left)


def test_what_was_broken_off_is_removed_by_its_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without a row, of a run that is known; what is young, or of others, stays."""
    with OpenStore(tmp_path) as own:
        files = FolderStore(tmp_path / "files", is_ours=True)
        run_id, _ = own.store.create_run(None, None)
        for each in (run_id, "run_of_others"):
            with files.writing(each, "art_1") as sink:
                sink.write(b"x")
        (tmp_path / "files" / run_id / "art_2.partial").touch()
        index = TextIndex(own.engine, own.writer)
        listing = Listing(own.engine, own.writer, index)

        def tidy_up() -> set[str]:
            retention = Retention(own.engine, own.writer)
            chores = Housekeeping(own.store, listing, index, files, retention, Periods())
            chores.lead(leads=True)
            chores.start()
            try:
                eventually(lambda: assert_swept(chores))
            finally:
                chores.close()
            return {path.parent.name + path.suffix for path in tmp_path.glob("files/*/*")}

        assert tidy_up() == {run_id, f"{run_id}.partial", "run_of_others"}
        monkeypatch.setattr(housekeeping, "_UPLOADS_END_S", -1)
        assert tidy_up() == {"run_of_others"}


def assert_swept(chores: Housekeeping) -> None:
    """The first round has come to its end."""
    assert chores._swept_at > 0


LISTING = """
import pathlib, sys, time
from gateway.storage.object_store import ObjectStore
files = ObjectStore(sys.argv[1], pathlib.Path(sys.argv[2]))
for number in range(3):
    with files.writing("run_1", f"art_{number}") as sink:
        sink.write(b"x")
for each in files.entries():
    print(each.run_id, each.file_id, abs(each.modified_at - time.time()) < 600)
files.remove("run_1", "art_1")
print([each.file_id for each in files.entries()])
"""


def test_an_object_store_tells_what_it_has(store: Moto, tmp_path: Path) -> None:
    """With its times. In a process of its own, because the library's threads do not end."""
    environ = environ_of(store.port, "listed/here")
    url = environ["CLAUDE_RUNNER_GATEWAY_FILES_URL"]
    done = subprocess.run(
        [sys.executable, "-c", LISTING, url, str(tmp_path)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.splitlines() == [
        *(f"run_1 art_{number} True" for number in range(3)),
        "['art_0', 'art_2']",
    ]
