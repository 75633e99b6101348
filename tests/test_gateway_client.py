"""What an answer of the gateway means, and which addresses are this machine's."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_client import (
    Clock,
    Credentials,
    GatewayClient,
    Outcome,
    RateLimit,
    is_confidential,
    is_loopback,
    lists_commands,
    parse_reply,
    says_healthy,
    says_ok,
)
from gateway_transport import GatewayError
from redact import printable
from testing.gateways.client_bench import FAR_NAME, OWN, as_json
from testing.tables import each_row

HTML = b"<html><head><title>oops</title></head></html>"


@each_row(
    ("status", "raw", "outcome"),
    [
        pytest.param(200, as_json(OWN), Outcome.ACCEPTED, id="ok"),
        pytest.param(200, HTML, Outcome.UNKNOWN, id="200-html"),
        pytest.param(200, b"", Outcome.UNKNOWN, id="200-empty"),
        pytest.param(200, as_json(OWN)[:-3], Outcome.UNKNOWN, id="200-cut"),
        pytest.param(200, as_json({"ok": False}), Outcome.UNKNOWN, id="200-not-ok"),
        pytest.param(200, as_json({"ok": "true"}), Outcome.UNKNOWN, id="200-ok-is-text"),
        pytest.param(200, b"[]", Outcome.UNKNOWN, id="200-list-for-an-event"),
        pytest.param(200, b'{"status":"ok"}', Outcome.UNKNOWN, id="200-load-balancer"),
        pytest.param(200, b"[" * 100_000, Outcome.UNKNOWN, id="200-nested-too-deep"),
        pytest.param(200, b"9" * 100_000, Outcome.UNKNOWN, id="200-endless-number"),
        pytest.param(201, as_json(OWN), Outcome.UNKNOWN, id="201"),
        pytest.param(204, b"", Outcome.UNKNOWN, id="204"),
        pytest.param(301, b"", Outcome.UNKNOWN, id="301"),
        pytest.param(307, as_json(OWN), Outcome.UNKNOWN, id="307"),
        pytest.param(400, as_json({"error": "Run ID required"}), Outcome.REFUSED, id="400"),
        pytest.param(400, HTML, Outcome.UNKNOWN, id="400-html"),
        pytest.param(
            401,
            as_json({"error": "Nonce already used (replay attack detected)"}),
            Outcome.REPLAYED,
            id="401-nonce",
        ),
        pytest.param(
            401,
            as_json({"error": "Request timestamp out of allowed range"}),
            Outcome.SKEWED,
            id="401-timestamp",
        ),
        pytest.param(
            401, as_json({"error": "Invalid signature"}), Outcome.WRONG_SECRET, id="401-signature"
        ),
        pytest.param(
            401,
            as_json({"error": "Missing authentication headers"}),
            Outcome.WRONG_SECRET,
            id="401-missing",
        ),
        pytest.param(401, as_json({"error": "login required"}), Outcome.UNKNOWN, id="401-login"),
        pytest.param(401, HTML, Outcome.UNKNOWN, id="401-html"),
        pytest.param(
            403,
            as_json({"error": "Invalid capability token for run"}),
            Outcome.WRONG_TOKEN,
            id="403-token",
        ),
        pytest.param(
            403,
            as_json({"error": "Capability token mismatch"}),
            Outcome.WRONG_TOKEN,
            id="403-mismatch",
        ),
        pytest.param(403, as_json({"error": "blocked"}), Outcome.UNKNOWN, id="403-firewall"),
        pytest.param(403, HTML, Outcome.UNKNOWN, id="403-html"),
        pytest.param(404, as_json({"error": "Not Found"}), Outcome.UNKNOWN, id="404"),
        pytest.param(406, as_json({"error": "Not Acceptable"}), Outcome.REFUSED, id="406"),
        pytest.param(413, as_json({"error": "File too large"}), Outcome.REFUSED, id="413"),
        pytest.param(413, HTML, Outcome.REFUSED, id="413-html"),
        pytest.param(413, b"", Outcome.REFUSED, id="413-empty"),
        pytest.param(415, as_json({"error": "Unsupported"}), Outcome.REFUSED, id="415"),
        pytest.param(429, as_json({"error": "Too Many"}), Outcome.LIMITED, id="429"),
        pytest.param(429, HTML, Outcome.LIMITED, id="429-html"),
        pytest.param(429, b"", Outcome.LIMITED, id="429-empty"),
        pytest.param(
            500, as_json({"statusCode": 500, "error": "Internal"}), Outcome.FAILED, id="500"
        ),
        pytest.param(500, HTML, Outcome.UNKNOWN, id="500-html"),
        pytest.param(500, as_json({"error": {}}), Outcome.UNKNOWN, id="500-other-json"),
        pytest.param(500, as_json(["error"]), Outcome.UNKNOWN, id="500-list"),
        pytest.param(502, HTML, Outcome.UNKNOWN, id="502-html"),
        pytest.param(502, as_json({"error": "Bad Gateway"}), Outcome.UNKNOWN, id="502-json"),
        pytest.param(503, HTML, Outcome.UNKNOWN, id="503-html"),
        pytest.param(504, HTML, Outcome.UNKNOWN, id="504-html"),
        pytest.param(522, HTML, Outcome.UNKNOWN, id="522-html"),
    ],
)
def test_only_the_gateways_own_words_count(status: int, raw: bytes, outcome: Outcome) -> None:
    """An answer decides about an event only if it has the shape of the gateway's own."""
    assert parse_reply(status, {}, raw).outcome is outcome


@pytest.mark.parametrize(
    ("raw", "answers"),
    [
        (b'{"ok":true}', {says_ok}),
        (b'{"status":"ok","timestamp":1}', {says_healthy}),
        (b"[]", {lists_commands}),
        (b'[{"id":"c","command":"pwd"}]', {lists_commands}),
        (b"null", set()),
        (b"{}", set()),
        (b"true", set()),
    ],
)
def test_a_200_counts_for_the_endpoint_that_answers_so(
    raw: bytes, answers: set[Callable[[Any], bool]]
) -> None:
    """What one endpoint says in a 200 is no answer of another one."""
    for is_answer in (says_ok, says_healthy, lists_commands):
        expected = Outcome.ACCEPTED if is_answer in answers else Outcome.UNKNOWN
        assert parse_reply(200, {}, raw, is_answer=is_answer).outcome is expected


@each_row(
    ("headers", "expected"),
    [
        (("100", "42", "17"), RateLimit(100, 42, 17.0)),
        (("100", "42", "1.5"), RateLimit(100, 42, 1.5)),
        (("100", "42", "1000000"), RateLimit(100, 42, 3600.0)),
        (("100", "42", "1700000000"), None),  # somebody else's: a date, not a duration
        (("0", "0", "1"), None),
        (("-1", "1", "1"), None),
        (("100", "-1", "1"), None),
        (("100", "1", "-1"), None),
        (("nan", "1", "1"), None),
        (("100", "inf", "1"), None),
        (("100", "1", "soon"), None),
        (("100, 100", "1", "1"), None),
        (("1e400", "1", "1"), None),
        (("", "", ""), None),
        (("100", None, "1"), None),
    ],
)
def test_absurd_rate_headers_are_no_rate_headers(
    headers: tuple[str | None, ...], expected: RateLimit | None
) -> None:
    """Only three sane numbers steer the pace."""
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    given = {name: value for name, value in zip(names, headers) if value is not None}

    assert parse_reply(200, given, as_json(OWN)).rate_limit == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("0", 0.0), ("-1", None), ("1e99", None), ("nan", None), ("tomorrow", None)],
)
def test_retry_after_is_a_sane_number_or_nothing(text: str, seconds: float | None) -> None:
    """A wait that the gateway asks for is a number of seconds that can be waited."""
    assert parse_reply(429, {"retry-after": text}, b"").retry_after_s == seconds


def test_the_date_header_tells_the_clocks_difference() -> None:
    """The size of a skew is this machine's time less the gateway's."""
    headers = {"date": "Tue, 14 Nov 2023 22:13:20 GMT"}

    reply = parse_reply(401, headers, b"{}", now=1_700_000_400)

    assert reply.clock_ahead_s == 400.0


@given(st.text() | st.sampled_from(["", " ", "Tue", "Tue, 14 Nov 99999 22:13:20 GMT", "1 2 3 4 5"]))
def test_an_absurd_date_is_no_date(text: str) -> None:
    """No text in a Date header raises; what cannot be read says nothing."""
    ahead_s = parse_reply(200, {"date": text}, b"{}").clock_ahead_s

    assert ahead_s is None or isinstance(ahead_s, float)


@given(
    st.integers(100, 599), st.binary(), st.dictionaries(st.sampled_from(["date", "x"]), st.text())
)
def test_no_answer_raises(status: int, raw: bytes, headers: dict[str, str]) -> None:
    """Whatever comes back is turned into an outcome with a message that can be shown."""
    reply = parse_reply(status, headers, raw)

    assert reply.message.isprintable()
    assert 0 < len(reply.message) <= 300


def test_the_gateways_text_is_shown_and_not_obeyed() -> None:
    """Control characters of a hostile answer are visible, and a long one is bounded."""
    hostile = "\x1b]0;title\x07\r\n\u202e" + "x" * 1_000_000

    reply = parse_reply(400, {}, as_json({"error": hostile}))

    assert reply.message.startswith(r"\x1b]0;title\x07\r\n\u202e")
    assert reply.message.isprintable()
    assert len(reply.message) == 300
    assert printable("a\tb", 100) == r"a\tb"


def test_a_request_of_an_extension_is_json() -> None:
    """The body is UTF-8, and the query is not part of what is signed."""
    client = GatewayClient("http://127.0.0.1:9", Credentials("s" * 32))

    attempt = client.post("/api/offers", {"name": "é"}, "wait=20")

    client.close()
    assert (attempt.method, attempt.path, attempt.query) == ("POST", "/api/offers", "wait=20")
    assert attempt.body == '{"name": "é"}'.encode()


def test_an_attempts_age_is_told_by_the_clock_that_says_more() -> None:
    """Neither a machine that slept nor a clock that was set back makes an attempt younger."""
    times = {"wall": 1_000.0, "monotonic": 50.0}
    clock = Clock(lambda: times["wall"], lambda: times["monotonic"])
    client = GatewayClient("http://127.0.0.1:9", Credentials("s" * 32), clock=clock)
    attempt = client.event(b"{}")
    client.close()

    ages = []
    for wall, monotonic in ((1_000.0, 50.0), (1_290.0, 51.0), (400.0, 350.0)):
        times.update(wall=wall, monotonic=monotonic)
        ages.append(attempt.age_s(clock))

    assert ages == [0.0, 290.0, 300.0]


@each_row(
    ("url", "loopback"),
    [
        ("http://localhost:1", True),
        ("http://LOCALHOST:1", True),
        ("http://gateway.localhost", True),
        ("http://127.0.0.1", True),
        ("http://127.8.9.10:80", True),
        ("http://[::1]:3100", True),
        ("http://127.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://notlocalhost", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
        ("http://[::2]", False),
    ],
)
def test_loopback_is_an_address_and_not_a_beginning(url: str, loopback: bool) -> None:
    """No name that somebody can register passes for this machine."""
    assert is_loopback(url) is loopback
    assert is_confidential(url) is loopback


def test_plain_http_to_a_far_host_needs_consent() -> None:
    """Output in the clear over a network is the user's own decision."""
    with pytest.raises(GatewayError, match=r"not encrypted; use https.*ALLOW_HTTP=true"):
        GatewayClient(f"http://{FAR_NAME}", Credentials("s" * 32))

    GatewayClient(f"http://{FAR_NAME}", Credentials("s" * 32), allow_http=True).close()
    GatewayClient(f"https://{FAR_NAME}", Credentials("s" * 32)).close()
