"""Whom a client trusts: authorities, bundles, and certificates that are pinned."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import certifi
import pytest

from gateway_client import Credentials, GatewayClient, Outcome
from gateway_transport import GatewayError, PinStore
from testing.gateways.certificates import self_signed
from testing.gateways.client_bench import FAR_NAME, WITHIN_S, bench
from testing.gateways.proxy import LoopbackProxy


def test_a_certificate_of_a_usual_authority_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any setting the authorities are those that come with the requests package."""
    with bench(tls=True) as b:
        monkeypatch.setattr(certifi, "where", lambda: str(b.gateway.ca_file))

        assert b.post(b.client()).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_self_signed_gateway_can_be_named_in_a_bundle(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who trusts a certificate by a bundle needs no ALLOW_SELF_SIGNED, and pins nothing."""
    certificate = self_signed()
    (tmp_path / "bundle.pem").write_bytes(certificate.pem)
    monkeypatch.setenv(variable, str(tmp_path / "bundle.pem"))

    with bench(tls=certificate) as b:
        assert b.post(b.client()).outcome is Outcome.ACCEPTED
        assert b.post(b.client(pins=tmp_path / "pins.json")).outcome is Outcome.ACCEPTED
        assert not (tmp_path / "pins.json").exists()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: None, "does not exist"),
        (lambda path: path.write_text("no certificate\n"), "holds no certificate in PEM format"),
        (Path.touch, "holds no certificate in PEM format"),
        (lambda path: path.write_bytes(self_signed().der), "holds no certificate in PEM format"),
        (Path.mkdir, "is a folder without hashed certificates"),
        (os.mkfifo, "is not a file"),
    ],
    ids=["missing", "text", "empty", "DER", "folder", "pipe"],
)
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_that_is_none_is_told(
    variable: str,
    make: Callable[[Path], object],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong file is the user's to correct, and not an outage to be waited out."""
    make(tmp_path / "ca.pem")
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))

    with pytest.raises(GatewayError) as caught:
        GatewayClient("https://localhost:1", Credentials("s" * 32))

    assert str(caught.value).startswith(f"{variable} names {tmp_path}/ca.pem, which {reason}")


def test_a_self_signed_certificate_is_refused_without_consent() -> None:
    """A certificate that nobody vouches for is no outage: the words say what it is."""
    with bench(tls=self_signed()) as b:
        reply = b.post(b.client())

        assert reply.outcome is Outcome.UNKNOWN
        assert reply.message == "its certificate does not verify"
        assert b.gateway.requests == []


def test_a_self_signed_certificate_is_pinned_on_first_use(tmp_path: Path) -> None:
    """The first certificate is told and remembered, in a private file; the same one is silent."""
    certificate = self_signed()
    pins = tmp_path / "data" / "pins.json"

    with bench(tls=certificate) as b:
        outcomes = [b.post(b.client(pins=pins)).outcome for _ in range(3)]

        assert outcomes == [Outcome.ACCEPTED] * 3
        host = f"127.0.0.1:{b.gateway.port}"
        assert json.loads(pins.read_text()) == {host: certificate.sha256}
        assert pins.stat().st_mode & 0o777 == 0o600
        told = f"trusting the self-signed certificate of {host} from now on (SHA-256 "
        assert b.announced == [f"{told}{certificate.sha256[:16]}…)"]


@pytest.mark.parametrize("in_one_connection", [True, False], ids=["same-client", "new-client"])
def test_a_changed_certificate_is_refused(tmp_path: Path, in_one_connection: bool) -> None:
    """Another self-signed certificate gets no request, and the user a sentence with the way out."""
    pins = tmp_path / "pins.json"
    with bench(tls=self_signed()) as b:
        client = b.client(pins=pins)
        b.post(client)
        b.gateway.use_certificate(self_signed())
        client = client if in_one_connection else b.client(pins=pins)

        with pytest.raises(GatewayError) as caught:
            b.post(client)

        sentence = str(caught.value)
        assert "is not the one that was trusted before" in sentence
        assert f"remove the line of 127.0.0.1:{b.gateway.port} from {pins}" in sentence
        assert len(b.gateway.requests) == 1


def test_a_renewed_certificate_that_verifies_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that gets a proper certificate in place of a pinned one is as good as before."""
    pins = tmp_path / "pins.json"
    with bench(tls=self_signed()) as b:
        b.post(b.client(pins=pins))
        b.gateway.use_certificate(b.gateway.authority.issue())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))

        assert b.post(b.client(pins=pins)).outcome is Outcome.ACCEPTED
        assert len(b.announced) == 1


def test_a_certificate_that_verifies_is_not_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALLOW_SELF_SIGNED changes nothing for a gateway that does not need it."""
    with bench(tls=True) as b:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))

        assert b.post(b.client(pins=tmp_path / "pins.json")).outcome is Outcome.ACCEPTED
        assert not (tmp_path / "pins.json").exists()
        assert b.announced == []


@pytest.mark.parametrize("is_pinned", [True, False], ids=["planted-pin", "no-pin"])
def test_a_gateway_that_verified_once_must_verify(
    is_pinned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An impostor gets nothing, not even with a pin in the project; the sentence heals it."""
    pins, verified = tmp_path / "pins.json", tmp_path / "state" / "claude-runner" / "v.json"
    impostor = self_signed()
    with bench(tls=True) as b:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))
        host = f"127.0.0.1:{b.gateway.port}"

        def client() -> GatewayClient:
            store = PinStore(pins, b.announced.append, verified)
            made = GatewayClient(
                b.gateway.url,
                Credentials(b.gateway.secret, b.run.id, b.run.token),
                pins=store,
            )
            b.stack.callback(made.close)
            return made

        b.post(client())
        assert json.loads(verified.read_text()) == {host: "verified"}
        modes = [each.stat().st_mode & 0o777 for each in (verified, verified.parent)]
        assert modes == [0o600, 0o700]
        b.gateway.use_certificate(impostor)
        if is_pinned:
            pins.write_text(json.dumps({host: impostor.sha256}))
        with pytest.raises(GatewayError) as caught:
            b.post(client())
        assert f"remove the line of {host} from {verified}" in str(caught.value)
        assert len(b.gateway.requests) == 1

        verified.write_text("{}")
        assert b.post(client()).outcome is Outcome.ACCEPTED


def test_a_folder_that_cannot_be_written_is_told_and_remembered_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a place for it a run still begins, and an impostor in mid-run gets nothing."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "v.lock").mkdir()  # also in the way of root
    with bench(tls=True) as b:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))
        store = PinStore(tmp_path / "p.json", b.announced.append, tmp_path / "state" / "v.json")
        client = GatewayClient(
            b.gateway.url, Credentials(b.gateway.secret, b.run.id, b.run.token), pins=store
        )
        b.stack.callback(client.close)
        assert b.post(client).outcome is Outcome.ACCEPTED
        assert "cannot be remembered" in b.announced[0]
        b.gateway.use_certificate(self_signed())
        b.gateway.drop_connections()
        with pytest.raises(GatewayError, match="an earlier one did"):
            b.post(client)


def test_a_certificate_for_another_name_is_pinned_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate of a known authority for somebody else does not verify."""
    with bench(tls=True) as b:
        b.gateway.use_certificate(b.gateway.authority.issue("other.test"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))

        assert b.post(b.client()).message == "its certificate does not verify"
        assert b.post(b.client(pins=tmp_path / "pins.json")).outcome is Outcome.ACCEPTED
        assert len(b.announced) == 1


def test_a_pin_holds_through_a_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy it is the gateway's certificate that is pinned, under the gateway's name."""
    pins = tmp_path / "pins.json"
    with bench(tls=self_signed()) as b, LoopbackProxy(hosts={FAR_NAME: b.gateway.port}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        url = b.gateway.url_for(FAR_NAME)

        outcomes = [b.post(b.client(url, pins=pins)).outcome for _ in range(2)]
        b.gateway.use_certificate(self_signed())
        with pytest.raises(GatewayError, match="not the one that was trusted before"):
            b.post(b.client(url, pins=pins))

        assert outcomes == [Outcome.ACCEPTED] * 2
        assert list(json.loads(pins.read_text())) == [f"{FAR_NAME}:{b.gateway.port}"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a:1": 5}', b"\xff"])
def test_a_damaged_pin_file_is_told_and_not_overwritten(content: bytes, tmp_path: Path) -> None:
    """Trust is not begun anew because a file cannot be read."""
    pins = tmp_path / "pins.json"
    pins.write_bytes(content)
    with bench(tls=self_signed()) as b:
        with pytest.raises(GatewayError, match="correct it, or remove it"):
            b.post(b.client(pins=pins))

        assert pins.read_bytes() == content
        assert b.gateway.requests == []


def test_a_pin_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    """Without a place to remember it, nothing is trusted and nothing is sent."""
    (tmp_path / "file").write_text("in the way")
    with bench(tls=self_signed()) as b:
        with pytest.raises(GatewayError, match=r"cannot be (remembered|read)"):
            b.post(b.client(pins=tmp_path / "file" / "pins.json"))

        assert b.gateway.requests == []


def test_pins_of_two_runs_at_once_are_both_kept(tmp_path: Path) -> None:
    """Runs that pin different gateways in the same moment do not lose each other's pin."""
    pins = tmp_path / "pins.json"
    hosts = [f"host{number}:443" for number in range(40)]
    barrier = threading.Barrier(4)

    def pin(mine: list[str]) -> None:
        store = PinStore(pins, lambda _: None)
        barrier.wait(WITHIN_S)
        for host in mine:
            store.check(host, "f" * 64)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pin, [hosts[start::4] for start in range(4)]))

    assert sorted(json.loads(pins.read_text())) == sorted(hosts)
