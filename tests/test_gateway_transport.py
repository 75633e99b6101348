"""The way to the gateway through the whole runner: proxies, bundles, certificates; and a flood."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.gateways.certificates import self_signed
from testing.gateways.faults import Delay, Fault
from testing.gateways.proxy import LoopbackProxy
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.children import floods
from testing.programs.runner import Launch, RunnerProcess, child, plan, program
from testing.programs.verdict import judge, sync
from testing.waiting import eventually

# Only a proxy knows where this is.
FAR_NAME = "gateway.test"
MEGABYTES = 20
MAX_MEMORY_KB = 150 * 1024


def run_whole(launch: Launch) -> str:
    """Let a run of three lines come to its end; return what the runner told."""
    with RunnerProcess(launch) as runner:
        assert runner.wait(30) == 0
        told = runner.stderr
    assert judge(launch.gateway, launch.run.id, last=3).problems == []
    return told


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_no_proxy_for_localhost(tmp_path: Path, host: str) -> None:
    """With HTTPS_PROXY and the others set, a gateway on this machine is reached directly."""
    with StrictGateway(rate_limit=None, tls=True) as gateway, LoopbackProxy() as proxy:
        names = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy")
        env = dict.fromkeys(names, proxy.url)
        env["GATEWAY_URL"] = gateway.url_for(host)
        env["REQUESTS_CA_BUNDLE"] = str(gateway.ca_file)

        run_whole(plan(gateway, child("lines.py", "3", "0"), tmp_path, env=env))

        assert proxy.requests == []


def test_a_gateway_below_a_path(tmp_path: Path) -> None:
    """A web server takes the path off, so it is not signed; and its cookies are not sent back."""
    base = "/tools/gw-1"
    with StrictGateway(rate_limit=None) as gateway, LoopbackProxy(gateway.url, below=base) as proxy:
        env = {"GATEWAY_URL": f"{proxy.url}{base}/"}

        run_whole(plan(gateway, child("lines.py", "3", "0"), tmp_path, env=env))

        assert {each.status for each in proxy.requests} == {200}
        assert not [each for each in gateway.requests if "cookie" in each.headers]
        assert len(gateway.requests) == len(proxy.requests)


def test_a_bundle_with_a_self_signed_gateway(tmp_path: Path) -> None:
    """A self-signed certificate that REQUESTS_CA_BUNDLE names verifies, and nothing is pinned."""
    certificate = self_signed()
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(certificate.pem)
    with StrictGateway(rate_limit=None, tls=certificate) as gateway:
        env = {"REQUESTS_CA_BUNDLE": str(bundle)}
        launch = plan(gateway, child("lines.py", "3", "0"), tmp_path, env=env)

        assert "certificate" not in run_whole(launch)
        assert not (launch.data_dir / "pins.json").exists()


def test_a_self_signed_gateway_without_consent(tmp_path: Path) -> None:
    """Nothing is started and nothing is sent, and the way out is named."""
    with StrictGateway(rate_limit=None, tls=self_signed()) as gateway:
        launch = plan(gateway, child("lines.py", "3", "0"), tmp_path)
        with RunnerProcess(launch) as runner:
            assert runner.wait(30) == 1
            assert "ALLOW_SELF_SIGNED=true" in runner.stderr
            assert "REQUESTS_CA_BUNDLE" in runner.stderr
        assert gateway.requests == []


def test_a_pin_through_a_tunnel(tmp_path: Path) -> None:
    """Behind a CONNECT proxy the gateway's certificate is pinned, told once, and good for sync."""
    certificate = self_signed()
    with ExitStack() as stack:
        gateway = stack.enter_context(StrictGateway(rate_limit=None, tls=certificate))
        proxy = stack.enter_context(LoopbackProxy(hosts={FAR_NAME: gateway.port}))
        env = {"HTTPS_PROXY": proxy.url, "ALLOW_SELF_SIGNED": "true"}
        env["GATEWAY_URL"] = gateway.url_for(FAR_NAME)
        launch = plan(gateway, child("lines.py", "3", "0"), tmp_path, env=env)

        told = run_whole(launch)

        assert told.count("trusting the self-signed certificate") == 1
        pins = json.loads((launch.data_dir / "pins.json").read_text())
        assert pins == {f"{FAR_NAME}:{gateway.port}": certificate.sha256}
        assert {each.method for each in proxy.requests} == {"CONNECT"}


def test_a_changed_certificate(tmp_path: Path) -> None:
    """Who shows another certificate in mid-run gets nothing; the session goes on; sync heals."""
    first = self_signed()
    with StrictGateway(rate_limit=None, tls=first) as gateway:
        go, end = tmp_path / "go", tmp_path / "end"
        source = (
            "import os, time\nprint('1 1.000000', flush=True)\n"
            f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
            "print('2 1.000000\\n3 1.000000\\nLAST', flush=True)\n"
            f"while not os.path.exists({str(end)!r}): time.sleep(0.01)\n"
        )
        env = {"ALLOW_SELF_SIGNED": "true", "CLAUDE_RUNNER_DRAIN_TIMEOUT": "1"}
        launch = plan(gateway, program(source), tmp_path, env=env)
        with RunnerProcess(launch) as runner:
            launch.expect("1 1.0")
            gateway.use_certificate(self_signed())
            gateway.drop_connections()
            go.touch()

            def is_told() -> None:
                assert "is not the one that was trusted before" in runner.stderr

            eventually(is_told)
            end.touch()
            assert runner.wait(30) == 0
        assert gateway.text(launch.run.id) == "1 1.000000\n"
        refused = sync(launch)
        assert refused.code == 1
        assert "is not the one that was trusted before" in refused.stderr
        gateway.use_certificate(first)

        assert sync(launch).code == 0
        assert judge(gateway, launch.run.id, last=3).problems == []


def test_an_impostor_of_a_gateway_that_verified(tmp_path: Path) -> None:
    """With ALLOW_SELF_SIGNED=true too it gets nothing, in mid-run and from `sync`; sync heals."""
    go = tmp_path / "go"
    source = (
        "import os, time\nprint('1 1.000000', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "print('2 1.000000\\n3 1.000000\\nLAST', flush=True)\n"
    )
    with StrictGateway(rate_limit=None, tls=True) as gateway:
        env = {
            "ALLOW_SELF_SIGNED": "true",
            "REQUESTS_CA_BUNDLE": str(gateway.ca_file),
            "CLAUDE_RUNNER_DRAIN_TIMEOUT": "1",
        }
        launch = plan(gateway, program(source), tmp_path, env=env)
        with RunnerProcess(launch) as runner:
            launch.expect("1 1.0")
            gateway.use_certificate(self_signed())
            gateway.drop_connections()
            requests = len(gateway.requests)

            def waits() -> None:
                assert "remote control waits, a stop by the gateway's page too" in runner.stderr

            eventually(waits)
            go.touch()
            assert runner.wait(30) == 0
            assert "does not verify, and an earlier one did" in runner.stderr
        refused = sync(launch)
        assert refused.code == 1
        assert "does not verify, and an earlier one did" in refused.stderr
        assert len(gateway.requests) == requests
        gateway.use_certificate(gateway.authority.issue())

        assert sync(launch).code == 0
        assert judge(gateway, launch.run.id, last=3).problems == []


def test_a_renewed_certificate_that_verifies(tmp_path: Path) -> None:
    """A pinned gateway that gets a certificate of an authority is as good as before."""
    with StrictGateway(rate_limit=None, tls=self_signed()) as gateway:
        for number in (1, 2):
            folder = tmp_path / str(number)
            folder.mkdir()
            env = {"ALLOW_SELF_SIGNED": "true", "CLAUDE_RUNNER_DATA_DIR": str(tmp_path / "data")}
            if number == 2:
                gateway.use_certificate(gateway.authority.issue())
                gateway.drop_connections()
                env["REQUESTS_CA_BUNDLE"] = str(gateway.ca_file)
            launch = plan(gateway, child("lines.py", "3", "0"), folder, env=env)
            at = launch.argv.index("--data-dir")
            launch.argv[at + 1] = str(tmp_path / "data")

            assert ("trusting" in run_whole(launch)) is (number == 1)


# --- much output, slow gateway --------------------------------------------------------------------


def test_a_flood_to_a_slow_gateway(tmp_path: Path) -> None:
    """20 MB at full speed arrive whole, in few large events, and little memory is used."""
    with StrictGateway(rate_limit=None) as gateway:
        slow = gateway.faults.add(Fault("event", Delay(0.3, after="stored"), every=1))
        launch = plan(gateway, child("floods.py", str(MEGABYTES)), tmp_path)
        with RunnerProcess(launch) as runner:
            gateway.wait_for(lambda: gateway.markers(launch.run.id, "finished"), 60)
            peak_kb = _peak_kb(runner.pid)
            gateway.faults.remove(slow)
            assert runner.wait(60) == 0

        events = gateway.events(launch.run.id, "stdout")
        expected = hashlib.sha256()
        for number in range(MEGABYTES * floods.LINES_IN_A_MEGABYTE):
            expected.update(floods.line(number))
        whole = "".join(each.data for each in events).encode()
        assert hashlib.sha256(whole).digest() == expected.digest()
        assert gateway.verify_finished(launch.run.id) == []
        # A slow machine has no whole megabyte each time the gateway takes more; a read has 64 KB.
        assert len(events) <= 6 * MEGABYTES
        assert peak_kb is None or peak_kb <= MAX_MEMORY_KB


def _peak_kb(pid: int) -> int | None:
    """Return the most memory that a process has used; None where nobody tells."""

    def read() -> int | None:
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        except OSError:
            return None
        return int(found.group(1)) if found else None

    return eventually(read)
