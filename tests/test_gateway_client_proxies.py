"""Proxies and other things in the environment that a request may meet."""

from __future__ import annotations

import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests.adapters  # noqa: F401 - before a test takes PySocks away, which is looked for once

from gateway_client import Credentials, GatewayClient, Outcome
from gateway_transport import GatewayError
from testing.gateways.client_bench import FAR_NAME, WITHIN_S, bench
from testing.gateways.proxy import LoopbackProxy


def test_a_netrc_file_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that the user keeps for the host do not travel with a signed request."""
    netrc = Path.home() / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password mine\ndefault login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    with bench() as b:
        assert b.post(b.client()).outcome is Outcome.ACCEPTED
        assert "authorization" not in b.gateway.requests[0].headers


def test_a_proxy_never_serves_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to this machine does not leave it, whatever the environment says."""
    with bench() as b, LoopbackProxy() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for host in ("127.0.0.1", "localhost"):
            assert b.post(b.client(b.gateway.url_for(host))).outcome is Outcome.ACCEPTED
        assert proxy.requests == []


def test_a_proxy_of_the_environment_leads_to_a_far_gateway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host that only the proxy knows is reached through its tunnel, and verified through it."""
    with bench(tls=True) as b, LoopbackProxy(hosts={FAR_NAME: b.gateway.port}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))
        client = b.client(b.gateway.url_for(FAR_NAME))

        outcomes = [b.post(client).outcome for _ in range(2)]

        assert outcomes == [Outcome.ACCEPTED] * 2
        assert [each.method for each in proxy.requests] == ["CONNECT"]


def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user is told that the proxy is what stands in the way."""
    with LoopbackProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        client = GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32))

        reply = client.send(client.commands())
        client.close()

    assert reply.message == "the proxy does not let the request through"


@pytest.mark.parametrize("scheme", ["socks5h", "socks"])
def test_a_socks_proxy_leads_to_a_far_gateway(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy looks the name up; the certificate is that of the gateway, verified or pinned."""
    pytest.importorskip("socks", reason="PySocks is not installed")
    with bench(tls=True) as b, LoopbackProxy(hosts={FAR_NAME: b.gateway.port}) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("http", scheme))
        pinning = b.client(b.gateway.url_for(FAR_NAME), pins=tmp_path / "pins.json")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(b.gateway.ca_file))
        client = b.client(b.gateway.url_for(FAR_NAME))

        outcomes = [b.post(each).outcome for each in (client, client, pinning)]

        assert outcomes == [Outcome.ACCEPTED] * 3
        assert {each.target for each in proxy.requests} == {f"{FAR_NAME}:{b.gateway.port}"}
        refused = b.post(b.client("https://elsewhere.test")).message
        assert refused == "the proxy does not let the request through"
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    client = GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32))
    assert client.send(client.commands()).message == "the proxy cannot be reached"
    client.close()


def test_abort_reaches_a_socks_proxy_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the proxy is waited for in is one of our sockets, with its deadlines."""
    pytest.importorskip("socks", reason="PySocks is not installed")
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as pool:
        silent.settimeout(WITHIN_S)
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{silent.getsockname()[1]}")
        client = GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32))
        asking = pool.submit(client.send, client.commands())
        with silent.accept()[0] as accepted:
            assert accepted.recv(1) == b"\5"
            client.abort()

            assert asking.result(WITHIN_S).message == "the exchange was broken off"
    client.close()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ALL_PROXY", "socks5h://127.0.0.1:1", "ALL_PROXY names a SOCKS proxy, which needs "),
        ("https_proxy", "SOCKS5://127.0.0.1:1", "https_proxy names a SOCKS proxy, which needs "),
        ("HTTPS_PROXY", "ftp://proxy.test", "HTTPS_PROXY names a proxy that cannot be used; "),
        ("HTTPS_PROXY", "http://", "HTTPS_PROXY names a proxy that cannot be used; "),
        ("ALL_PROXY", "socks9://u:p@proxy.test", "ALL_PROXY names a proxy that cannot be used; "),
        ("ALL_PROXY", "http://proxy.test:port", "ALL_PROXY names a proxy that cannot be used; "),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its variable, what to install or to write, and without the proxy's password."""
    monkeypatch.setitem(sys.modules, "socks", None)  # as if PySocks were not installed
    monkeypatch.setenv(variable, value)

    with pytest.raises(GatewayError, match=f"^{told}") as caught:
        GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32))

    assert "u:p" not in str(caught.value)


def test_a_proxy_that_is_not_there_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the user looks for the mistake in the gateway."""
    monkeypatch.setenv("HTTPS_PROXY", "127.0.0.1:1")
    client = GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32))

    assert client.send(client.commands()).message == "the proxy cannot be reached"

    client.close()


@pytest.mark.parametrize(
    ("host", "no_proxy", "is_excepted"),
    [
        (FAR_NAME, ".test", True),
        (FAR_NAME, "other, gateway.test", True),
        (FAR_NAME, "fd00::/8,test.", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "11.0.0.0/8,fd00::/8", False),
        ("[fd00::7]", "fd00::/8", True),
        ("[fd00::7]", "a.test, FD00:0::/16", True),
        ("[fd00::7]", "[fd00::]/8", True),
        ("[fd00::7]", "[fd00::/8]", True),
        ("[fd00::7]", "fd00:0:0::7", True),
        ("[fd00::7]", "[fd00::7]", True),
        ("[fd00::7]:3100", "[fd00::7]:3100", True),
        ("[fd00::7]:3100", "[fd00::7]:3101", False),
        ("[fd00::7]", "[fd00::7]:443", True),
        ("[fe80::7%25eth0]", "fe80::/10", True),
        ("[fe80::7]", "fd00::/8,fe80::8", False),
        ("[::ffff:10.1.2.3]", "10.0.0.0/8", True),
        ("[fd00::7]", "*", True),
    ],
)
def test_no_proxy_is_honoured(
    host: str, no_proxy: str, is_excepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that the user excepts is not asked from the proxy, nor one in such a range."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)

    client = GatewayClient(f"https://{host}", Credentials("s" * 32))

    assert (client.open().proxies == {}) is is_excepted
    client.close()
