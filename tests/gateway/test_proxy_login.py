"""Signing in by the headers of a proxy, as oauth2-proxy sends them to what is behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.access.proxy_login import ProxyLogin, ProxyLoginError, parse_rules
from gateway.roles import Role
from gateway.settings import SettingsError, load_settings
from testing.gateways.embedded_gateway import Answer, EmbeddedGateway, open_socket
from testing.gateways.member import follow

SETTINGS = {
    "CLAUDE_RUNNER_GATEWAY_SIGN_IN_HEADER": "X-Forwarded-Email",
    "CLAUDE_RUNNER_GATEWAY_ROLES": (
        "admin=ann@example.org operator=@developers operator:own=@contractors viewer:/srv/shop*=*"
    ),
}
# What `oauth2-proxy --pass-user-headers` adds to a request.
BEN = {
    "X-Forwarded-User": "1f0c2d",
    "X-Forwarded-Email": "ben@example.org",
    "X-Forwarded-Preferred-Username": "ben",
    "X-Forwarded-Groups": "staff,developers",
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Proto": "http",
}
NOT_TRUSTED = "This request says who is signed in, and does not come from a trusted proxy."


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway behind a trusted proxy, which is the test."""
    env = {**SETTINGS, "CLAUDE_RUNNER_GATEWAY_TRUSTED_PROXIES": "127.0.0.1"}
    with EmbeddedGateway(tmp_path_factory.mktemp("proxied"), env=env) as gateway:
        yield gateway


def ask(gw: EmbeddedGateway, email: str, groups: str = "", path: str = "/api/me") -> Answer:
    """Ask for something as the proxy does for somebody."""
    headers = {**BEN, "X-Forwarded-Email": email, "X-Forwarded-Groups": groups}
    return gw.request("GET", path, headers=headers)


def test_the_first_rule_that_fits_gives_the_role(gw: EmbeddedGateway) -> None:
    """A name, a group, or anybody."""
    told = [
        ask(gw, "ann@example.org", "developers").json(),
        ask(gw, "ben@example.org", "staff, developers").json(),
        ask(gw, "cid@example.org", "contractors").json(),
        ask(gw, "dora@example.org", "develop").json(),
        ask(gw, "eve@example.org", "@developers").json(),
    ]

    assert [(each["name"][:3], each["role"], each["own"], each["folders"]) for each in told] == [
        ("ann", "admin", False, []),
        ("ben", "operator", False, []),
        ("cid", "operator", True, []),
        ("dor", "viewer", False, ["/srv/shop*"]),
        ("eve", "viewer", False, ["/srv/shop*"]),
    ]
    assert {each["signed_in"] for each in told} == {"proxy"}


def test_all_works_as_with_a_session(gw: EmbeddedGateway) -> None:
    """Pages, changes, streams, links and the audit; what is the proxy's is left to it."""
    ours = {**BEN, "Origin": f"http://127.0.0.1:{gw.port}", "Content-Type": "application/json"}
    assert gw.request("GET", "/", headers=BEN).status == 200
    made = gw.request("POST", "/api/runs", b"{}", ours)
    run_id = made.json()["id"]
    assert gw.api("GET", f"/api/runs/{run_id}", headers={}).json()["owner"] == "ben@example.org"
    with follow(gw, f"/api/runs/{run_id}/stream", BEN) as stream:
        assert stream.response.status == 200
    link = gw.request("POST", f"/api/runs/{run_id}/text/link", b"{}", ours).json()["address"]
    assert gw.request("GET", link, headers=BEN).status == 200
    assert ask(gw, "ann@example.org", path=link).status == 401
    assert gw.request("GET", link).status == 401
    (noted,) = gw.api("GET", f"/api/audit?run={run_id}").json()["entries"]
    assert (noted["person"], noted["actor"], noted["address"]) == (
        "ben@example.org",
        "proxy",
        "192.0.2.7",
    )
    for headers in (
        {**BEN, "Content-Type": "application/json"},
        {**ours, "Origin": "http://evil.example"},
        {**ours, "Content-Type": "text/plain"},
    ):
        assert gw.request("POST", "/api/runs", b"{}", headers).status == 403
    ann = {**ours, "X-Forwarded-Email": "ann@example.org"}
    assert gw.request("POST", "/api/login-codes", b"{}", ann).status == 400
    assert gw.request("POST", "/api/me/sign-out", b"{}", ours).status == 409


def test_without_a_name_it_is_as_ever(gw: EmbeddedGateway) -> None:
    """A script with a token, and a browser that has logged in, come through the proxy too."""
    assert gw.api("GET", "/api/me").json()["signed_in"] == "token"
    assert gw.request("GET", "/api/me", headers=gw.log_in()).json()["role"] == "admin"
    assert gw.request("GET", "/api/me").status == 401


@pytest.mark.parametrize("name", ["ann@example.org, ben", "a b", "-a", "x" * 101, "ann@\xe9"])
def test_a_name_that_is_none(gw: EmbeddedGateway, name: str) -> None:
    """It is refused, and is nobody with fewer rights."""
    assert ask(gw, name).status == 403


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["X-Forwarded-Email: ben@example.org"], 200),
        (["X-Forwarded-Email: ben@example.org", "X-Forwarded-Email: ann@example.org"], 400),
        (["x-forwarded-email: ann@example.org", "X-Forwarded-Email: ben@example.org"], 400),
        (["X-Forwarded-Email: ben@example.org", " ann@example.org"], 400),
        (["X-Forwarded-Email : ann@example.org"], 400),
        (["X_Forwarded_Email: ann@example.org"], 401),
        (["X-Forwarded_Email: ann@example.org"], 401),
        (["X-Forwarded-Email: ben@example.org", "X_Forwarded_Email: ann@example.org"], 200),
        (["X-Forwarded-Email: ben@example.org", *["X-Forwarded-Groups: developers"] * 2], 400),
        (["X-Forwarded-Email:"], 401),
        (["X-Forwarded-Groups: developers"], 401),
    ],
)
def test_nobody_is_smuggled_in(gw: EmbeddedGateway, lines: list[str], status: int) -> None:
    """A header that is there twice, in two lines, or in another spelling."""
    head = [
        "GET /api/me HTTP/1.1",
        f"Host: 127.0.0.1:{gw.port}",
        *lines,
        "Connection: close",
        "",
        "",
    ]
    with open_socket(gw.port) as connection:
        connection.sendall("\r\n".join(head).encode())
        answer = b""
        while more := connection.recv(65_536):
            answer += more

    assert int(answer.split()[1]) == status, answer
    if status == 200:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["name"] == "ben@example.org"


@pytest.mark.parametrize("forwarded", [{}, {"X-Forwarded-For": "192.0.2.1"}])
def test_from_anywhere_else_it_is_refused(
    tmp_path_factory: pytest.TempPathFactory, forwarded: dict[str, str]
) -> None:
    """Also from who says to be the proxy. The log says so, once a minute; nothing else changes."""
    env = {**SETTINGS, "CLAUDE_RUNNER_GATEWAY_TRUSTED_PROXIES": "192.0.2.1"}
    with EmbeddedGateway(tmp_path_factory.mktemp("elsewhere"), env=env) as own:
        named = {"X-Forwarded-Email": "ann@example.org", **forwarded}
        for path in ("/api/me", "/", "/api/stream"):
            answer = own.request("GET", path, headers=named)
            assert (answer.status, answer.error) == (403, NOT_TRUSTED)
        with_token = own.api("GET", "/api/me", headers=named)
        assert with_token.status == 403
        assert own.api("GET", "/api/me").status == 200
        assert own.log.count("a request from 127.0.0.1 named who is signed in") == 1


def test_without_a_login_by_header_it_is_ignored(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever sends it."""
    env = {"CLAUDE_RUNNER_GATEWAY_TRUSTED_PROXIES": "127.0.0.1"}
    with EmbeddedGateway(tmp_path_factory.mktemp("plain"), env=env) as own:
        assert own.request("GET", "/api/me", headers=BEN).status == 401
        assert own.api("GET", "/api/me", headers=BEN).json()["name"] is None


@pytest.mark.parametrize(
    "wrong",
    ["owner=*", "admin:own=ann", "viewer=", "viewer", "=ann", "viewer:=ann", "viewer=a,b", "*"],
)
def test_rules_that_mean_nothing(wrong: str) -> None:
    """They are told at the start."""
    with pytest.raises(ValueError, match=r".*"):
        parse_rules(f"viewer=* {wrong}")


def test_half_a_login_by_header_does_not_start(tmp_path: Path) -> None:
    """What it lacks is said; without it everybody could be anybody, or nobody anything."""
    (tmp_path / "env").touch()
    environ = {**SETTINGS, "HMAC_SECRET": "x" * 32}
    with pytest.raises(SettingsError, match=r"\w+_TRUSTED_PROXIES must be set too"):
        load_settings(environ, str(tmp_path), str(tmp_path / "env"))


def test_no_group_is_left_out() -> None:
    """The first rule counts, also for the last of many groups."""
    login = ProxyLogin("X-User", "X-Groups", parse_rules("viewer:own=@guests operator=*"))
    groups = ",".join([*map(str, range(2_000)), "guests"])
    environ = {"gateway.is_proxied": True, "HTTP_X_USER": "ann", "HTTP_X_GROUPS": groups}

    named = login.read(environ)

    assert named is not None
    assert login.find(named).role is Role.VIEWER


def test_a_name_without_a_role_is_told_so() -> None:
    """It is no stranger, and no viewer either."""
    login = ProxyLogin("X-User", "X-Groups", parse_rules("viewer=@team"))
    environ = {"HTTP_X_USER": "ann", "gateway.is_proxied": True, "HTTP_X_GROUPS": "team"}
    named = login.read(environ)
    assert named is not None
    assert login.find(named).role is Role.VIEWER
    with pytest.raises(ProxyLoginError, match="ann is signed in, and has no role"):
        login.find(named._replace(groups=()))
