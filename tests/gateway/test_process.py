"""The gateway as a program: how it starts, what it makes, what it says, and how it ends."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
import zxingcpp

from gateway.command_line import SAME_SIGNAL_S
from gateway.settings import DATABASE_URL, DRAIN_SECONDS, OWN, RETENTION_DAYS
from testing.gateways import certificates
from testing.gateways.embedded_gateway import ROOT, EmbeddedGateway, multipart
from testing.programs.disk import mount_disk
from testing.programs.runner import run_to_end
from testing.programs.terminal import Terminal
from testing.waiting import eventually

GIVES_UP_WITHIN_S = 100


def refusal(own: EmbeddedGateway) -> str:
    """Start a gateway that cannot start; return the one sentence on stderr."""
    result = run_to_end(own.command(), own.environ, within_s=GIVES_UP_WITHIN_S)
    assert result.returncode == 1, result
    assert result.stdout == b""
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("claude-runner: ")
    return line


def mode(path: Path) -> int:
    """Return a file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


# --- its end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(tmp_path: Path, number: int) -> None:
    """With viewers, waiting polls and silent connections; the poll gets its answer."""
    with EmbeddedGateway(tmp_path) as own, contextlib.ExitStack() as stack:
        run = own.create_run()
        path = f"/api/runs/{run.id}/commands"
        streams = [stack.enter_context(own.follow("/api/stream")) for _ in range(5)]
        poll = own.connect()
        stack.callback(poll.close)
        poll.request("GET", f"{path}?wait=60", headers=own.sign("GET", path, run=run))
        for _ in range(5):
            stack.enter_context(socket.create_connection(("127.0.0.1", own.port)))
        own.send_event(run, "stdout", "x", 1)

        began = time.monotonic()
        code = own.stop(number)

        assert code == 0
        # On a quiet machine; whoever waited for the poll would wait for a minute.
        assert time.monotonic() - began < 15
        answer = poll.getresponse()
        assert json.loads(answer.read()) == []
        assert answer.getheader("Connection") == "close"
        for stream in streams:
            told = list(iter(stream.next, None))
            assert [each.name for each in told][-1:] == ["reconnect"]
        assert "Traceback" not in own.log


def begin_upload(own: EmbeddedGateway, stack: contextlib.ExitStack) -> Callable[[], int]:
    """Send half of a file; return what sends the rest, and returns the answer's status."""
    run = own.create_run()
    kind, body = multipart("a.txt", b"x" * 3_000_000)
    upload = own.connect()
    stack.callback(upload.close)
    upload.putrequest("POST", "/api/ingest/artifact")
    headers = own.sign("POST", "/api/ingest/artifact", run=run, content_type=kind)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        upload.putheader(name, value)
    upload.endheaders(body[:2_000_000])
    folder = own.data_dir / "gateway" / "artifacts"
    eventually(lambda: _is_there(folder / run.id))

    def finish() -> int:
        upload.send(body[2_000_000:])
        return upload.getresponse().status

    return finish


def _is_there(path: Path) -> None:
    assert path.exists()


def test_what_is_under_way_is_finished(tmp_path: Path) -> None:
    """After a signal the health check says so at once; what comes meanwhile is answered, and no
    connection is kept.
    """
    with EmbeddedGateway(tmp_path) as own, contextlib.ExitStack() as stack:
        run = own.create_run()
        kept = own.connect()
        stack.callback(kept.close)
        kept.request("GET", "/api/health")
        assert kept.getresponse().read()
        finish = begin_upload(own, stack)

        os.kill(own.pid, signal.SIGTERM)

        eventually(lambda: _is_draining(own))
        kept.request("GET", "/api/health")
        told = kept.getresponse()
        assert (told.status, told.getheader("Connection")) == (503, "close")
        answer = own.send_event(run, "stdout", "x", 1)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        poll = own.send("GET", f"/api/runs/{run.id}/commands?wait=50", run=run)
        assert (poll.status, poll.json()) == (200, [])
        assert own.api("GET", "/api/stream").status == 503
        assert finish() == 200
        assert own.wait() == 0
        own.start()
        assert [each["data"] for each in own.events(run)] == ["x"]


def _is_draining(own: EmbeddedGateway) -> None:
    answer = own.request("GET", "/api/health")
    assert (answer.status, answer.json()["status"]) == (503, "draining")


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """For an upload that would never end; two in the same moment are one."""
    with EmbeddedGateway(tmp_path) as own, contextlib.ExitStack() as stack:
        begin_upload(own, stack)
        for _ in range(2):
            os.kill(own.pid, signal.SIGTERM)
        eventually(lambda: _is_draining(own))
        time.sleep(SAME_SIGNAL_S)

        assert own.stop() == 128 + signal.SIGTERM


def test_a_balancer_has_time_to_notice(tmp_path: Path) -> None:
    """For as long as the setting says, it answers."""
    with EmbeddedGateway(tmp_path, env={DRAIN_SECONDS: "1"}) as own:
        began = time.monotonic()
        os.kill(own.pid, signal.SIGTERM)
        eventually(lambda: _is_draining(own))

        assert own.wait() == 0
        assert time.monotonic() - began >= 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="macOS has no /proc")
def test_a_signal_that_another_thread_takes_ends_it(tmp_path: Path) -> None:
    """As one that comes just before the main thread waits, it interrupts no wait."""
    with EmbeddedGateway(tmp_path) as own:
        threads = sorted(int(path.name) for path in Path(f"/proc/{own.pid}/task").iterdir())
        assert own.pid == threads[0]

        os.kill(threads[-1], signal.SIGTERM)

        assert own.wait() == 0


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Runs, events, commands, files; certificate, secret and tokens stay as they were."""
    with EmbeddedGateway(tmp_path, tls=True) as own:
        run = own.create_run("prompt")
        own.send_event(run, "stdout", "x", 1)
        uploaded = own.send_artifact(run, "a.txt", b"content").json()["artifactId"]
        own.api("POST", f"/api/runs/{run.id}/stop", {})
        before = (own.run(run), own.admin_token, own.secret, own.told["fingerprint"])
        own.stop()
        own.start()

        assert (own.run(run), own.admin_token, own.secret, own.told["fingerprint"]) == before
        assert [event["data"] for event in own.events(run)] == ["x"]
        assert own.api("GET", f"/api/artifacts/{uploaded}").body == b"content"
        assert len(own.send("GET", f"/api/runs/{run.id}/commands", run=run).json()) == 1
        assert own.send_event(run, "stdout", "x", 1).status == 200
        assert len(own.events(run)) == 1


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    """kill -9 right after the answer: the event is on disk."""
    with EmbeddedGateway(tmp_path) as own:
        run = own.create_run()
        for number in range(1, 21):
            assert own.send_event(run, "stdout", str(number), number).status == 200
        own.kill()
        own.start()

        assert [int(event["data"]) for event in own.events(run)] == list(range(1, 21))


# --- what it makes -------------------------------------------------------------------------------


def test_its_files_are_its_own(tmp_path: Path) -> None:
    """Nobody else can read what it keeps."""
    with EmbeddedGateway(tmp_path, tls=True) as own:
        run = own.create_run()
        own.send_artifact(run, "a.txt", b"x")
        folder = own.data_dir / "gateway"

        assert mode(own.data_dir) == mode(folder) == 0o700
        for name in ("admin-token", "certificate.pem", "key.pem", "gateway.db"):
            assert mode(folder / name) == 0o600, name
        for path in (folder / "artifacts").rglob("*"):
            assert mode(path) == (0o700 if path.is_dir() else 0o600), path
        assert mode(own.env_file) == 0o600


def test_the_secret_is_written_beside_what_is_there(tmp_path: Path) -> None:
    """A missing HMAC_SECRET is added, in the place of the example's; other lines stay."""
    text = "# mine\nCLAUDE_COMMAND='x y'\nHMAC_SECRET=<must match gateway>\nALLOW_SELF_SIGNED=true"
    own = EmbeddedGateway(tmp_path)
    own.env_file.write_text(text)
    own.env_file.chmod(0o644)

    with own:
        made = own.env_file.read_text()
        assert re.fullmatch(r"[0-9a-f]{64}", own.secret)
        assert made == text.replace("<must match gateway>", own.secret)
        assert mode(own.env_file) == 0o600
        assert f"made a new HMAC_SECRET in {own.env_file}" in own.log
        own.stop()
        own.start()
        assert own.env_file.read_text() == made
        assert own.log.count("made a new HMAC_SECRET") == 1


def test_a_secret_that_is_there_is_used(tmp_path: Path) -> None:
    """And a file without a line break at its end gets one before what is added."""
    own = EmbeddedGateway(tmp_path / "a")
    own.env_file.write_text("HMAC_SECRET=abc\n")
    with own:
        assert own.send_event(None, "info", "x").status == 400  # the signature is right
        assert own.env_file.read_text() == "HMAC_SECRET=abc\n"
    other = EmbeddedGateway(tmp_path / "b")
    other.env_file.write_text("CLAUDE_COMMAND=x")
    with other:
        assert other.env_file.read_text() == f"CLAUDE_COMMAND=x\nHMAC_SECRET={other.secret}\n"


def test_what_runners_lack_is_told(tmp_path: Path) -> None:
    """Another port than the documented one, or a certificate that the runner would refuse."""
    with EmbeddedGateway(tmp_path / "new", tls=True) as own:
        assert f"runners need GATEWAY_URL={own.url} in {own.env_file}" in own.log
    known = EmbeddedGateway(tmp_path / "old", tls=True)
    known.env_file.write_text("HMAC_SECRET=abc\n")
    with known:
        assert f"GATEWAY_URL={known.url} and ALLOW_SELF_SIGNED=true in" in known.log


def test_the_certificate_is_the_one_that_was_told(tmp_path: Path) -> None:
    """Its fingerprint is printed, and it is good for the names that people use."""
    with EmbeddedGateway(tmp_path, tls=True) as own:
        pem = (own.data_dir / "gateway" / "certificate.pem").read_text()
        context = ssl.create_default_context(cadata=pem)
        printed = own.told["fingerprint"]

        for name in ("localhost", "127.0.0.1"):
            raw = socket.create_connection(("127.0.0.1", own.port), timeout=20)
            with context.wrap_socket(raw, server_hostname=name) as wrapped:
                shown = hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").hexdigest()
            assert printed.replace(":", "").lower() == shown
        assert printed in own.log


def test_http_on_the_https_port_is_explained(tmp_path: Path) -> None:
    """One sentence says what to do."""
    with EmbeddedGateway(tmp_path, tls=True) as own:
        with socket.create_connection(("127.0.0.1", own.port), timeout=20) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            reply = b""
            while piece := sock.recv(4096):
                reply += piece

        assert reply.startswith(b"HTTP/1.1 400")
        assert b"https://" in reply


def test_every_address_is_told_and_accepted(tmp_path: Path) -> None:
    """With --host 0.0.0.0 the addresses for a phone are printed, each with a login of its own."""
    with EmbeddedGateway(tmp_path, "--host", "0.0.0.0") as own:
        addresses = re.findall(
            r"phone in the same network: http://([^/:]+):\d+/login\?code=", own.log
        )
        assert addresses or "no address that a phone could use" in own.log
        for address in addresses:
            headers = {"Host": f"{address}:{own.port}"}
            assert own.request("GET", "/api/health", headers=headers).status == 200


# The upper and the lower half of a character that a QR code is drawn with: is it light?
_HALVES = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}
_PIXELS_A_MODULE = 4


def photograph(drawn: list[str]) -> list[str]:
    """Return what a phone reads in lines of text, as they stand on a terminal."""
    rows: list[bytes] = []
    for line in drawn:
        for half in (0, 1):
            modules = (bytes([_HALVES[each][half]]) * _PIXELS_A_MODULE for each in line)
            rows += [b"".join(modules)] * _PIXELS_A_MODULE
    picture = memoryview(b"".join(rows)).cast("B", (len(rows), len(rows[0])))
    return [code.text for code in zxingcpp.read_barcodes(picture)]


@pytest.mark.parametrize(
    "arguments",
    [("--public-url", "http://runs.example:8443"), ("--host", "0.0.0.0")],
    ids=["behind a proxy", "in the network"],
)
def test_the_picture_is_a_login(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """What a phone's camera reads at the terminal lets its browser in, once; in the network it is
    the first address that is printed for a phone.
    """
    own = EmbeddedGateway(tmp_path, *arguments)
    with Terminal(own.command(), env=own.environ, columns=120, lines=60) as terminal:
        terminal.expect(b"press Ctrl-C to end", 60)
        shown = terminal.output.decode().splitlines()
        printed = re.findall(r"phone in the same network: (\S+)", "\n".join(shown))
        drawn = [line for line in shown if line and set(line) <= set(_HALVES)]
        if "no address that a phone could use" in terminal.output.decode():
            assert not drawn
            return
        (address,) = photograph(drawn)
        eventually(own.read_ready_file)

        where = urlsplit(address)
        path = f"{where.path}?{where.query}"
        first = own.request("GET", path, headers={"Host": where.netloc})
        second = own.request("GET", path, headers={"Host": where.netloc})

        assert address.startswith("http://runs.example:8443/") or address == printed[0]
        assert (first.status, second.status) == (200, 401)
        terminal.send(b"\x03")
        assert terminal.wait() == 0


@pytest.fixture
def browser(tmp_path: Path) -> Path:
    """A browser that writes its argument into the file `opened`, and stays for a while."""
    opened = tmp_path / "opened"
    program = tmp_path / "browser"
    program.write_text(
        f'#!/bin/sh\nprintf %s "$1" >"{opened}.partial"; mv "{opened}.partial" "{opened}"\n'
    )
    program.chmod(0o755)
    return program


def test_the_browser_is_opened(tmp_path: Path, browser: Path) -> None:
    """Where there is a display the user's browser gets a file, which leads to the page with a login
    of its own. No argument of a process has the login; the file is its owner's, and goes when it
    has been used, or at the end.
    """
    own = OpeningGateway(tmp_path, env={"DISPLAY": ":0", "BROWSER": str(browser)})

    for ending in ("used", "unused"):
        (tmp_path / "opened").unlink(missing_ok=True)
        with own:
            argument = eventually(lambda: read_text(tmp_path / "opened"))
            file = Path(url2pathname(urlsplit(argument).path))
            assert urlsplit(argument).scheme == "file"
            assert "code" not in argument
            assert mode(file) == 0o600
            assert mode(file.parent) == 0o700
            (address,) = set(re.findall(r'(http://[^"]*/login\?code=[^"]*)"', file.read_text()))
            assert address.startswith(own.url)
            assert address != own.told["login_url"]
            if ending == "used":
                assert own.request("GET", address[len(own.url) :]).status == 200
                assert not file.exists()
        assert not file.exists()


class OpeningGateway(EmbeddedGateway):
    """A gateway that may open a browser."""

    def command(self) -> list[str]:
        """Return the command line that starts it."""
        return [each for each in super().command() if each != "--no-open"]


def read_text(path: Path) -> str:
    """Return what is in a file that another process makes."""
    assert path.exists(), path
    return path.read_text()


def test_options_and_settings_are_documented() -> None:
    """What `--help` shows and each setting stands in docs/reference.md and in .env.example."""
    guide = (ROOT / "docs" / "reference.md").read_text()
    example = (ROOT / ".env.example").read_text()
    argv = [sys.executable, str(ROOT / "gateway"), "--help"]
    shown = subprocess.run(argv, capture_output=True, check=True, text=True).stdout

    for option in set(re.findall(r"--[a-z-]+", shown)) - {"--help", "--version"}:
        assert f"`{option}" in guide
    for variable in (setting.variable for setting in OWN):
        assert f"`{variable}`" in guide
        assert f"\n# {variable}=" in example


# --- why it does not start -----------------------------------------------------------------------


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    """It names the port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        line = refusal(EmbeddedGateway(tmp_path, "--port", str(port)))

        assert f"cannot listen on 127.0.0.1, port {port} (" in line


def test_one_gateway_for_one_folder(tmp_path: Path) -> None:
    """A second one is refused, and says which process has it."""
    with EmbeddedGateway(tmp_path) as own:
        line = refusal(own)

        assert f"a gateway is already running with this data (process {own.pid})" in line
        assert own.request("GET", "/api/health").status == 200


def test_one_gateway_for_one_file(tmp_path: Path) -> None:
    """Also where each has a folder of its own."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    first, second = (
        EmbeddedGateway(tmp_path / name, env={DATABASE_URL: url}) for name in ("first", "second")
    )
    with first:
        line = refusal(second)

    assert f"another gateway uses the database {tmp_path / 'gateway.db'}" in line


def test_an_env_file_that_is_not_there(tmp_path: Path) -> None:
    """A slip in its name makes no second secret: the file is named, and the option to correct."""
    own = EmbeddedGateway(tmp_path)
    own.env_file.unlink()

    line = refusal(own)

    assert line == f"claude-runner: {own.env_file} does not exist; correct --env-file"
    assert not own.env_file.exists()


def test_a_data_folder_that_is_none(tmp_path: Path) -> None:
    """A file in its place is one sentence."""
    own = EmbeddedGateway(tmp_path)
    own.data_dir.write_text("")

    assert str(own.data_dir) in refusal(own)


def test_a_ready_file_that_cannot_be_written(tmp_path: Path) -> None:
    """Who waits for it would wait for ever, so the gateway ends with one sentence."""
    own = EmbeddedGateway(tmp_path)
    (tmp_path / "ready").mkdir()
    result = subprocess.run(
        own.command(),
        env=own.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=GIVES_UP_WITHIN_S,
    )

    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line == f"claude-runner: {tmp_path}/ready cannot be written: Is a directory"


@pytest.mark.parametrize("content", [b"nonsense", b"", b"other key"])
def test_a_wrong_certificate_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    """Also one that does not belong to its key."""
    own = EmbeddedGateway(tmp_path, tls=True)
    with own:
        own.stop()
    if content == b"other key":
        content = certificates.self_signed().pem
    (own.data_dir / "gateway" / "certificate.pem").write_bytes(content)

    assert "certificate.pem" in refusal(own)


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    """Its version is told; nothing is changed."""
    with EmbeddedGateway(tmp_path) as own:
        own.stop()
    change(own, "INSERT INTO schema_versions VALUES (99, 0)")

    line = refusal(own)

    assert "version 99" in line
    assert "update claude-runner" in line


def test_a_database_that_is_none(tmp_path: Path) -> None:
    """One sentence, whatever is wrong with it."""
    with EmbeddedGateway(tmp_path) as own:
        own.stop()
    path = own.database_file
    for left in path.parent.glob("gateway.db*"):
        left.unlink()
    path.write_bytes(b"this is no database" * 1000)

    assert "database" in refusal(own)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CLAUDE_RUNNER_GATEWAY_RATE_LIMIT", "many"),
        ("CLAUDE_RUNNER_GATEWAY_RETENTION_DAYS", "-1"),
        ("CLAUDE_RUNNER_GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8 nonsense"),
        ("CLAUDE_RUNNER_GATEWAY_DATABASE_URL", "nonsense"),
        ("CLAUDE_RUNNER_GATEWAY_DATABASE_URL", "postgresql://me:half@other@127.0.0.1/x"),
        ("CLAUDE_RUNNER_GATEWAY_DATABASE_URL", "postgresql://me:half@other:more/x@127.0.0.1/x"),
        ("CLAUDE_RUNNER_GATEWAY_FILES_URL", "https://bucket.example.org"),
        ("CLAUDE_RUNNER_GATEWAY_FILES_URL", "file://elsewhere/srv/files"),
        ("CLAUDE_RUNNER_GATEWAY_DATABASE_URL", "sqlite:////nowhere/at/all.db"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, variable: str, value: str) -> None:
    """It names what is wrong."""
    line = refusal(EmbeddedGateway(tmp_path, env={variable: value}))

    assert variable in line or "database" in line
    assert not {"other", "more"} & set(re.findall(r"\w+", line))  # of a password


# --- the disk, and what is over ------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[EmbeddedGateway]:
    """A gateway whose data is on a disk of 8 MiB."""
    with mount_disk(tmp_path / "disk", megabytes=8) as disk:
        own = EmbeddedGateway(tmp_path)
        own.data_dir = disk.folder / "data"
        own.disk = disk
        with own:
            yield own
            own.stop()


def test_a_full_disk_answers_500_and_loses_nothing(small_disk: EmbeddedGateway) -> None:
    """What was not stored was not acknowledged; when there is room again it goes on."""
    own = small_disk
    run = own.create_run()
    assert own.send_event(run, "stdout", "first", 1).status == 200
    assert own.disk is not None
    own.disk.fill()
    statuses = [own.send_event(run, "stdout", "x" * 100_000, n).status for n in range(2, 12)]
    assert statuses[-1] == 500
    assert own.send_artifact(run, "a.txt", b"x" * 100_000).status == 500
    assert own.request("GET", "/api/health").status == 200
    assert own.run(run)["id"] == run.id
    own.disk.make_room()

    for number, status in enumerate(statuses, 2):
        if status != 200:
            assert own.send_event(run, "stdout", "x" * 100_000, number).status == 200

    assert [event["sequence"] for event in own.events(run)] == list(range(1, 12))


def test_without_a_retention_runs_stay(tmp_path: Path) -> None:
    """0 days keep a run for ever; what only guards against repeated requests goes all the same."""
    with EmbeddedGateway(tmp_path, env={RETENTION_DAYS: "0"}) as own:
        run = own.create_run()
        own.send_event(run, "stdout", "x", 1)
        own.stop()
        path = own.data_dir / "gateway" / "gateway.db"
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("UPDATE runs SET last_event_at = last_event_at - 9999 * 86400")
            database.execute("UPDATE nonces SET used_at = used_at - 86400")
            database.commit()
        own.start()

        def the_nonces_are_gone() -> None:
            with contextlib.closing(sqlite3.connect(path)) as database:
                assert database.execute("SELECT count(*) FROM nonces").fetchone() == (0,)

        eventually(the_nonces_are_gone)
        own.stop()
        own.start()
        assert [event["data"] for event in own.events(run)] == ["x"]


def test_old_runs_are_removed(tmp_path: Path) -> None:
    """Past the retention a run goes with all that belongs to it; a younger one stays."""
    with EmbeddedGateway(tmp_path) as own:
        old, young = own.create_run(), own.create_run()
        for run in (old, young):
            for number in range(1, 4):
                own.send_event(run, "stdout", "x", number)
            own.send_artifact(run, "a.txt", b"x")
            own.api("POST", f"/api/runs/{run.id}/stop", {})
        own.stop()
        change(
            own,
            "UPDATE runs SET last_event_at = last_event_at - 31 * 86400 WHERE id = ?",
            old.id,
        )
        own.start()

        def only_the_young_is_left() -> None:
            assert [run["id"] for run in own.api("GET", "/api/runs").json()["runs"]] == [young.id]

        eventually(only_the_young_is_left)
        assert own.send_event(old, "stdout", "x", 4).status == 403
        assert len(own.events(young)) == 3
        files = own.data_dir / "gateway" / "artifacts"

        def so_are_its_files() -> None:
            assert [path.name for path in files.iterdir()] == [young.id]

        eventually(so_are_its_files)
        own.stop()
        for table in ("events", "commands", "artifacts"):
            assert select(own, f"SELECT DISTINCT run_id FROM {table}") == [(young.id,)]


def test_old_nonces_sessions_and_notes_are_removed(tmp_path: Path) -> None:
    """Nonces after 600 s, sessions at their end, notes with the retention; younger ones stay."""
    with EmbeddedGateway(tmp_path) as own:
        run = own.create_run()
        for number in (1, 2):
            assert own.send_event(run, "stdout", "x", number).status == 200
            code = own.api("POST", "/api/login-codes", {}).json()["code"]
            assert own.request("GET", f"/login?code={code}").status == 200
        own.stop()
        oldest = "WHERE number = 1"
        change(own, f"UPDATE nonces SET used_at = used_at - 600 {oldest}")
        change(own, f"UPDATE audit SET at = at - 30 * 86400 {oldest}")
        change(own, "UPDATE sessions SET expires_at = created_at WHERE rowid = 1")
        own.start()

        def only_the_young_are_left() -> None:
            assert select(own, "SELECT number FROM nonces") == [(2,)]
            assert select(own, "SELECT count(*) FROM sessions") == [(1,)]
            noted = select(own, "SELECT action FROM audit ORDER BY number")
            assert noted == [("login code",), ("login",)] * 2

        eventually(only_the_young_are_left)


def change(own: EmbeddedGateway, statement: str, *values: object) -> None:
    """Change something in the database, by no way that a client has."""
    with contextlib.closing(sqlite3.connect(own.database_file)) as database:
        database.execute(statement, values)
        database.commit()


def select(own: EmbeddedGateway, query: str) -> list[tuple[object, ...]]:
    """Return rows of the database."""
    with contextlib.closing(sqlite3.connect(own.database_file)) as database:
        return database.execute(query).fetchall()
