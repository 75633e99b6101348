"""Behind a real nginx, HAProxy and Caddy, with the files of docs/proxies: all that people do."""

from __future__ import annotations

import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.settings import ROLES, SIGN_IN_HEADER, TRUSTED_PROXIES
from testing.gateways.embedded_gateway import ROOT, session_of
from testing.gateways.embedded_record import EmbeddedRecord, free_port
from testing.gateways.front_proxies import (
    CLIENT,
    FILES,
    Front,
    ProxiedGateway,
    configuration,
    running,
)
from testing.programs.runner import child, plan, run_to_end
from testing.tables import each_row

SIGNED_IN = "X-Forwarded-Email"
FORGED = "203.0.113.66"
# More than any buffer of a proxy.
UPLOADED = 5_000_000


def behind(folder: Path, port: int) -> ProxiedGateway:
    """Return a gateway for people who come to a port of this machine."""
    folder.mkdir()
    return ProxiedGateway(
        folder / "gateway",
        *("--public-url", f"https://localhost:{port}/runs"),
        env={TRUSTED_PROXIES: "127.0.0.1", SIGN_IN_HEADER: SIGNED_IN, ROLES: "admin=*"},
    )


@pytest.mark.parametrize("name", FILES)
def test_the_whole_loop(tmp_path: Path, name: str) -> None:
    """A login, output while it comes, a poll that waits, a run of the real runner with a file."""
    port = free_port()
    gateway = behind(tmp_path / name, port)
    with gateway, running(name, tmp_path / "proxy", port, [gateway.port]) as front:
        # What only a trusted proxy can say: here it is one that passes everything on.
        assert gateway.request("GET", "/api/runs", headers={SIGNED_IN: "ann"}).status == 200
        gateway.front = front
        assert front.spoken() == "h2"
        look_around(gateway, front)
        follow_and_stop(gateway)
        run_the_runner(gateway, front, tmp_path)
        assert_addresses(gateway)


def look_around(gateway: ProxiedGateway, front: Front) -> None:
    """Log in, and read. Nobody signs in by saying so."""
    headers = dict.fromkeys((SIGNED_IN, SIGNED_IN.replace("-", "_")), "ann")
    assert gateway.request("GET", "/api/runs", headers=headers).status == 401
    code = gateway.api("POST", "/api/login-codes", {}).json()["code"]
    # What a client says of itself counts no more than without the proxy.
    forged = {"X-Forwarded-For": FORGED, "X_Forwarded_For": FORGED}
    welcome = gateway.request("GET", f"/login?code={code}", headers=forged)
    assert "; Secure" in welcome.headers["set-cookie"]
    session = session_of(welcome)
    assert gateway.request("GET", "/api/runs", headers=session).status == 200
    origin = front.url[: -len("/runs")]
    for each, status in ((origin, 201), ("https://evil.example", 403)):
        headers = {**session, "Origin": each, "Content-Type": "application/json"}
        assert gateway.request("POST", "/api/runs", b"{}", headers).status == status
    assert gateway.request("GET", "/static/style.css").status == 200


def follow_and_stop(gateway: ProxiedGateway) -> None:
    """Each event is seen before the next is sent: nothing is kept back. So is a stop."""
    run = gateway.create_run()
    record = EmbeddedRecord(gateway)
    path = f"/api/runs/{run.id}/commands"
    with gateway.follow(f"/api/runs/{run.id}/stream") as stream:
        for number in range(1, 4):
            assert gateway.send_event(run, "stdout", f"{number}\n", number).status == 200
            assert stream.take(1)[0].data["data"] == f"{number}\n"
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(gateway.send, "GET", f"{path}?wait=50", None, run)
            command = record.stop(run.id)
            assert [each["id"] for each in waiting.result().json()] == [command]
        assert stream.take(1, "command")[0].data["id"] == command


def run_the_runner(gateway: ProxiedGateway, front: Front, folder: Path) -> None:
    """The authority of the proxy's certificate is all that it has to be given."""
    large = folder / "large.log"
    large.write_bytes(b"0123456789abcde\n" * (UPLOADED // 16))
    record = EmbeddedRecord(gateway)
    launch = plan(
        record,
        child("lines.py", "200", "1000"),
        folder,
        options=("--artifact", str(large)),
        env={"GATEWAY_URL": front.url, "REQUESTS_CA_BUNDLE": str(front.authority)},
    )

    done = run_to_end(launch.argv, launch.env)

    assert done.returncode == 0, done.stderr
    run = gateway.run(launch.run)
    assert (run["status"], run["verdict"]["ok"]) == ("done", True)
    sizes = {each.name: len(each.data) for each in record.artifacts(launch.run.id)}
    assert sizes["large.log"] == UPLOADED


def assert_addresses(gateway: ProxiedGateway) -> None:
    """The audit has the client's own address, which only the proxy has seen."""
    with contextlib.closing(sqlite3.connect(gateway.database_file)) as database:
        (login,) = database.execute("SELECT address FROM audit WHERE action = 'login'").fetchall()
    assert login == (CLIENT,)


@each_row("name", FILES)
def test_the_page_shows_the_files(name: str) -> None:
    """docs/gateway-proxy.md has each as it stands; each is for one gateway or two."""
    text = configuration(name)
    page = (ROOT / "docs" / "gateway-proxy.md").read_text("utf-8")

    assert f"\n{text}```\n" in page
    for each in ("127.0.0.1:3100", "127.0.0.1:3101", "tools.example.org", TRUSTED_PROXIES):
        assert each in text
