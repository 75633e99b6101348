"""What Prometheus reads of a gateway: of all that was done, and nothing of what was said."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.observing.metrics import PREFIX, REASONS
from gateway.settings import METRICS
from testing.gateways.embedded_gateway import ROOT, EmbeddedGateway
from testing.gateways.embedded_record import free_port
from testing.waiting import eventually
from tests.gateway.test_process import refusal

SECRET = "hush-hush tell nobody"


class Read(Mapping[str, float]):
    """What was read at one moment: each number by its name with its labels."""

    def __init__(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            self.text = response.read().decode()
        finally:
            connection.close()
        assert response.status == 200
        self._found = {}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                labels = sorted(sample.labels.items())
                words = [sample.name, *(f"{name}={value}" for name, value in labels)]
                self._found[" ".join(words).replace(f"{PREFIX}_", "")] = sample.value

    def __getitem__(self, name: str) -> float:
        assert name in self._found, f"{name}: {sorted(self._found)}"
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedGateway, int]]:
    """A gateway, and the port at which its numbers are."""
    port = free_port()
    folder = tmp_path_factory.mktemp("gateway")
    address = f"127.0.0.1:{port}"
    with EmbeddedGateway(folder, env={METRICS: address}, rate_limit=30) as gateway:
        yield gateway, port


def test_all_that_was_done_is_counted(where: tuple[EmbeddedGateway, int]) -> None:
    """Requests by route and status, events and bytes, refusals, and who waits."""
    gw, port = where
    run = gw.create_run(SECRET)
    for number, text in enumerate((SECRET, "ä\n"), 1):
        assert gw.send_event(run, "stdout", text, number).status == 200
    assert gw.send_event(run, "stdout", SECRET, nonce="n" * 32, secret="wrong").status == 401
    assert gw.send_event(run, "stdout", SECRET, at=1.0).status == 401
    assert gw.send_artifact(run, f"{SECRET}.txt", SECRET.encode()).status == 200
    other = gw.create_run()
    (gw.data_dir / "gateway" / "artifacts" / other.id).write_text("")
    assert gw.send_artifact(other, "a.txt", b"x").status == 503
    assert gw.request("GET", f"/no/such/{SECRET.split()[0]}").status == 303
    path = f"/api/runs/{run.id}/commands"
    poll = gw.connect()
    try:
        poll.request("GET", f"{path}?wait=50", headers=gw.sign("GET", path, run=run))
        with gw.follow(f"/api/runs/{run.id}/stream") as stream, gw.follow("/api/stream"):
            assert len(stream.take(2)) == 2

            def somebody_waits() -> None:
                read = Read(port)
                assert (read["viewers"], read["parked_polls"]) == (2, 1)

            eventually(somebody_waits)
            gw.api("POST", f"/api/runs/{run.id}/stop", {})
            assert poll.getresponse().read()
        statuses = [gw.request("GET", "/api/health").status for _ in range(40)]
    finally:
        poll.close()
    assert statuses[-1] == 429
    # A request is noted when it has been answered.
    read = eventually(lambda: _all_is_counted(port, statuses.count(429)))
    # Nothing of a run, and no ids: whoever reads it may know how much, and not what.
    assert SECRET.split()[0] not in read.text
    assert run.id not in read.text


def _all_is_counted(port: int, limited: int) -> Read:
    read = Read(port)
    event, commands = "POST /api/ingest/event", "GET /api/runs/{run_id}/commands"
    assert read[f"requests_total route={event} status=200"] == 2
    assert read[f"requests_total route={event} status=401"] == 2
    assert read[f"request_seconds_count route={event}"] == 4
    assert read[f"request_seconds_bucket le=+Inf route={event}"] == 4
    assert 0 < read[f"request_seconds_sum route={event}"] < 100
    assert read[f"requests_total route={commands} status=200"] == 1
    # It has waited for a command, and so is no latency of the gateway's.
    assert f"request_seconds_count route={commands}" not in list(read)
    assert read["requests_total route=GET /api/runs/{run_id}/stream status=200"] == 1
    assert read["requests_total route=GET /api/stream status=200"] == 1
    assert read["requests_total route=other status=303"] == 1
    assert read["requests_total route=POST /api/runs status=201"] == 2
    assert read["events_total"] == 2
    assert read["event_bytes_total"] == len(SECRET.encode()) + 3
    refused = {reason: read[f"refusals_total reason={reason}"] for reason in REASONS}
    assert refused.pop("rate limit") == limited
    assert {reason: count for reason, count in refused.items() if count} == {
        "signature": 1,
        "clock": 1,
    }
    assert read["commit_seconds_count"] >= 2
    assert read["nonces"] >= 4
    assert read["queued_writes"] >= 0
    assert read["requests_under_way"] >= 0
    assert (read["up part=database"], read["up part=files"]) == (1, 1)
    assert read["errors_total part=files"] == 1
    assert read["runs state=pending"] == 2
    assert read["process_cpu_seconds_total"] > 0
    return read


def test_dashboard_and_alerts_name_what_there_is(where: tuple[EmbeddedGateway, int]) -> None:
    """Each number that they ask for is one that a gateway tells; the page has all of them."""
    gw, port = where
    gw.api("GET", "/api/runs")

    def some_request_is_noted() -> set[str]:
        told = set(re.findall(r"^(\w+)", Read(port).text, re.M))
        assert f"{PREFIX}_request_seconds_bucket" in told
        return told

    told = eventually(some_request_is_noted)
    folder = ROOT / "docs" / "observing"
    dashboard = json.loads((folder / "dashboard.json").read_text("utf-8"))
    rules = yaml.safe_load((folder / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = [*panels, *(rule["expr"] for rule in rules)]
    named = {name for each in asked for name in re.findall(rf"\b(?:{PREFIX}|process)_\w+", each)}

    assert len(rules) == 3
    assert {panel["title"] for panel in dashboard["panels"]}
    if sys.platform.startswith("linux"):
        assert named <= told
    page = (ROOT / "docs" / "gateway-observing.md").read_text("utf-8")
    ours = {name[len(PREFIX) + 1 :] for name in told if name.startswith(f"{PREFIX}_")}
    ours = {re.sub("_(bucket|sum|count|created)$", "", name) for name in ours}
    for name in ours:
        assert f"`{name}`" in page
    shown = {re.sub("_bucket$", "", name)[len(PREFIX) + 1 :] for name in named if PREFIX in name}
    assert shown == ours


def test_the_alerts_are_rules() -> None:
    """As Prometheus itself judges them."""
    program = shutil.which("promtool")
    file = ROOT / "docs" / "observing" / "alerts.yml"
    if program is not None:
        subprocess.run([program, "check", "rules", str(file)], check=True, timeout=60)
    assert "expr: " in file.read_text("utf-8")


def test_an_address_that_is_taken(where: tuple[EmbeddedGateway, int], tmp_path: Path) -> None:
    """Or that is none: one sentence."""
    _, port = where
    for address in (f"127.0.0.1:{port}", "127.0.0.1", ":99999"):
        line = refusal(EmbeddedGateway(tmp_path, env={METRICS: address}))
        assert METRICS in line
        assert re.search(r"cannot listen on 127\.0\.0\.1, port|write an address such as", line)
