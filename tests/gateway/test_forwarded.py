"""Behind a proxy: whose address counts, and what a header can and cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.serving.forwarded import TrustedProxies
from gateway.settings import TRUSTED_PROXIES
from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.tables import each_row

PROXY = "10.0.0.1"
TRUSTED = TrustedProxies.parse("10.0.0.0/8, fd00::/8 127.0.0.1")


def applied(peer: str, forwarded: str, proxies: TrustedProxies = TRUSTED) -> dict[str, Any]:
    """Return what becomes of a request that a peer has sent."""
    environ = {
        "REMOTE_ADDR": peer,
        "HTTP_X_FORWARDED_FOR": forwarded,
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_HOST": "runs.example.org",
        "HTTP_HOST": "10.0.0.5:3100",
        "wsgi.url_scheme": "http",
    }
    proxies.apply(environ)
    return environ


@each_row(
    ("forwarded", "client"),
    [
        ("", PROXY),
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        # What stands left of the first that is not trusted was written by nobody who is.
        ("198.51.100.9, 203.0.113.7", "203.0.113.7"),
        ("10.9.9.9, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("198.51.100.9,203.0.113.7 ,fd00::2,\t10.0.0.2", "203.0.113.7"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # What is no address ends the reading.
        ("garbage", PROXY),
        ("203.0.113.7, garbage, 10.0.0.2", "10.0.0.2"),
        ("203.0.113.7,", PROXY),
        ("unknown", PROXY),
        ("203.0.113.7:", PROXY),
        ("203.0.113.999", PROXY),
        ("[203.0.113.7", PROXY),
        ("fe80::1%eth0, 10.0.0.2", "10.0.0.2"),
        ("9" * 100_000, PROXY),
        ("1.1.1.1," * 50_000 + "203.0.113.7", "203.0.113.7"),
        ("203.0.113.7" + ", 10.0.0.2" * 50, "10.0.0.2"),
    ],
)
def test_whose_address_counts(forwarded: str, client: str) -> None:
    """The nearest one that is no trusted proxy's, however the header looks."""
    assert applied(PROXY, forwarded)["REMOTE_ADDR"] == client


@given(st.text("0123456789abcdef:.[], %", max_size=60))
@example("1.2.3.4, 10.0.0.2")
def test_any_header_leaves_an_address(forwarded: str) -> None:
    """And never another text, which would stand in logs and in the audit."""
    client = applied(PROXY, forwarded)["REMOTE_ADDR"]

    assert TrustedProxies.parse(client)
    assert "," not in client


@each_row("peer", ["11.0.0.1", "", "nonsense", "fe80::1%eth0", "2001:db8::1"])
def test_nobody_else_is_believed(peer: str) -> None:
    """Nor is anybody, where no proxy is named."""
    for proxies in (TRUSTED, TrustedProxies()):
        environ = applied(peer, "203.0.113.7", proxies)

        assert environ["REMOTE_ADDR"] == peer
        assert environ["HTTP_HOST"] == "10.0.0.5:3100"
        assert environ["wsgi.url_scheme"] == "http"
        assert not environ["gateway.is_proxied"]
    assert applied(PROXY, "203.0.113.7", TrustedProxies())["REMOTE_ADDR"] == PROXY


def test_a_proxy_says_name_and_scheme() -> None:
    """The last of several values, which is the nearest proxy's; it is a proxy also on IPv6."""
    environ = applied("::ffff:10.0.0.1", "203.0.113.7")
    assert (environ["HTTP_HOST"], environ["wsgi.url_scheme"]) == ("runs.example.org", "https")
    environ = {
        "REMOTE_ADDR": "fd00::1",
        "HTTP_X_FORWARDED_PROTO": "https, gopher",
        "HTTP_X_FORWARDED_HOST": "evil.example, runs.example.org",
        "wsgi.url_scheme": "http",
    }
    TRUSTED.apply(environ)
    assert (environ["HTTP_HOST"], environ["wsgi.url_scheme"]) == ("runs.example.org", "http")


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway behind a proxy on this machine."""
    with EmbeddedGateway(
        tmp_path_factory.mktemp("gateway"),
        *("--public-url", "https://runs.example.org"),
        rate_limit=5,
        env={TRUSTED_PROXIES: "127.0.0.1"},
    ) as gateway:
        yield gateway


def test_each_client_has_its_own_limit(gw: EmbeddedGateway) -> None:
    """One that is over it holds up nobody else, nor does the proxy's own probe."""
    first, other = ({"X-Forwarded-For": each} for each in ("203.0.113.7", "203.0.113.8"))
    told = [gw.request("GET", "/api/health", headers=first).status for _ in range(7)]

    assert told == [200] * 5 + [429] * 2
    assert gw.request("GET", "/api/health", headers=other).status == 200
    # One spelling of a name alone, and not what was sent before the proxy's own.
    for name in ("X_Forwarded_For", "x_forwarded-for"):
        answer = gw.request("GET", "/api/health", headers={**first, name: "203.0.113.9"})
        assert answer.status == 429
    assert [gw.request("GET", "/api/health").status for _ in range(10)] == [200] * 10


def test_two_lines_are_one_list(gw: EmbeddedGateway) -> None:
    """HAProxy adds its line below what the client has sent."""
    connection = gw.connect()
    try:
        connection.putrequest("GET", "/api/health")
        for each in ("198.51.100.1", "203.0.113.20", "127.0.0.1"):
            connection.putheader("X-Forwarded-For", each)
        connection.endheaders()
        response = connection.getresponse()
        assert (response.read(), response.status)[1] == 200
        assert response.getheader("x-ratelimit-remaining") == "4"
    finally:
        connection.close()
    answer = gw.request("GET", "/api/health", headers={"X-Forwarded-For": "203.0.113.20"})
    assert answer.headers["x-ratelimit-remaining"] == "3"


def test_wrong_tokens_count_by_client(gw: EmbeddedGateway) -> None:
    """A guesser behind the proxy locks nobody else out; the audit has the address."""
    guesses = {"Authorization": "Bearer wrong", "X-Forwarded-For": "203.0.113.30"}
    told = [gw.request("GET", "/api/runs", headers=guesses).status for _ in range(12)]
    other = {**guesses, "X-Forwarded-For": "[2001:db8::30]:99"}

    assert told == [401] * 10 + [429] * 2
    assert gw.request("GET", "/api/runs", headers=other).status == 401


@each_row(
    ("scheme", "host", "status"),
    [
        ("https", "runs.example.org", 200),
        ("http", "runs.example.org", 200),
        ("https", "localhost:8443", 200),
        ("http", "localhost:8443", 200),
        ("https", "evil.example", 421),
    ],
)
def test_what_the_browser_sees(gw: EmbeddedGateway, scheme: str, host: str, status: int) -> None:
    """Which name and scheme it has asked for decides on the cookie, and on whose page it is."""
    headers = {"X-Forwarded-Proto": scheme, "X-Forwarded-Host": host}
    code = gw.api("POST", "/api/login-codes", {}).json()["code"]

    answer = gw.request("GET", f"/login?code={code}", headers=headers)

    assert answer.status == status
    if status == 200:
        is_https = scheme == "https" or host == "runs.example.org"
        assert ("; Secure" in answer.headers["set-cookie"]) == is_https
        form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        for origin, told in ((f"{scheme}://{host}", 401), ("https://evil.example", 403)):
            answer = gw.request("POST", "/login", b"token=x", {**form, "Origin": origin})
            expected = 401 if host == "runs.example.org" and told == 401 else told
            assert answer.status == expected


def test_networks_that_are_none() -> None:
    """A wrong setting is one sentence."""
    for text in ("10.0.0.0/8 nonsense", "10.0.0.0/99", "proxy.example.org"):
        with pytest.raises(ValueError, match=r"nonsense|10\.0\.0\.0/99|proxy"):
            TrustedProxies.parse(text)
