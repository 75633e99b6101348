"""What must hold for every stream, found by trying many small ones.

The alphabets are tiny, so that secrets overlap themselves, and the mark shares no letter with them.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import urllib.parse

from hypothesis import given, settings
from hypothesis import strategies as st

from redact import Redactor, Rules
from redaction.view import View

MAX_HELD_BYTES = 4096
MANY = 2 * settings().max_examples
PIECES = st.sampled_from(
    [
        *(b"token", b"password", b"Bearer ", b"Cookie: ", b"key", b"=", b": ", b'"', b"\\", b" "),
        *(b"\r\n", b"\r", b" \r", b"\b", b"\x1b[1m", b"\x1b[", b"\x1b]0;", b"\x07", b"\x1b", b"\0"),
        *(
            b"://",
            b"u:",
            b"@",
            b"sk" + b"-",
            b"ey" + b"J",
            b"-----BEGIN ",
            b"PRIV" + b"ATE KEY-----",
        ),
        *(b"-----END X-----", b"aB3dE5gH7jK9mN1pQ3sT5vW7yZ", b"0123456789abcdef" * 2, b"-us1"),
        *(b"curl -u ", b" -p", b"mysql ", b'name="', b'" value="', b"| ", b"Some(", b"set "),
        *(b"\xc2\x9b", b"\xc2\x9d", b"\xc2", b"\x9c", b"\x18", b"\x1bP", b"\x1b\\", b"\x1b]", b"~"),
        *(b"'", b"''", b"`", b"$", b"{", b"<<<", b"login ", b"'+", b"key1 full ", b"!", b"1234"),
        *(b"ab", b"aab", b"abab-abab", b"\xc3", b"\xa9", b"x" * 70, b"None", b"f()"),
    ]
)
HARMLESS = st.sampled_from(
    [b"lorem", b"ipsum", b" ", b".", b"\r\n", b"\x1b[1m", b"\xe2\x94", b"12", b"(", b"/"]
)
STREAMS = st.lists(PIECES, max_size=25).map(b"".join)
SECRETS = st.text("ab", min_size=8, max_size=14).map(str.encode)
CUTS = st.lists(st.integers(0, 400), max_size=5)


def run(rules: Rules, chunks: list[bytes]) -> bytes:
    """Return what these reads are published as, having checked the bound on what is held."""
    redactor = Redactor(rules=rules)
    out = []
    for chunk in chunks:
        out.append(redactor.feed(chunk))
        assert redactor.held <= MAX_HELD_BYTES
    out.append(redactor.flush())
    assert redactor.failures == 0
    return b"".join(out)


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """Return the bytes cut at these places."""
    edges = sorted(min(place, len(raw)) for place in places)
    return [raw[a:b] for a, b in zip([0, *edges], [*edges, len(raw)])]


@settings(max_examples=MANY)
@given(stream=STREAMS, places=CUTS, secret=SECRETS)
def test_reads_make_no_difference(stream: bytes, places: list[int], secret: bytes) -> None:
    """Any split of the same input gives the same output, and so does the whole at once."""
    rules = Rules([secret, b"abab-abab"])

    whole = run(rules, [stream])

    assert rules.redact_bytes(stream) == whole
    assert run(rules, cut(stream, places)) == whole
    assert run(rules, [stream[at : at + 1] for at in range(len(stream))]) == whole


@settings(max_examples=MANY)
@given(
    secret=SECRETS,
    before=st.text("ab -", max_size=20).map(str.encode),
    after=st.text("ab -", max_size=20).map(str.encode),
    places=CUTS,
)
def test_no_known_value_comes_out(
    secret: bytes, before: bytes, after: bytes, places: list[int]
) -> None:
    """A known value is not in the output, whatever stands around it and wherever reads end."""
    out = run(Rules([secret]), cut(before + secret + after, places))

    assert secret not in out


@settings(max_examples=MANY)
@given(
    secrets=st.lists(st.text("0123", min_size=8, max_size=70), min_size=1, max_size=3),
    between=st.text("ab \n", min_size=1, max_size=70),
    places=CUTS,
    silent=st.booleans(),
)
def test_no_piece_of_a_known_value_comes_out(
    secrets: list[str], between: str, places: list[int], silent: bool
) -> None:
    """Nor are 12 bytes of one, however long they are and wherever among others they begin."""
    redactor = Redactor([secret.encode() for secret in secrets])

    out = b""
    for chunk in cut(between.join(["", *secrets, ""]).encode(), places):
        out += redactor.feed(chunk) + (redactor.idle() if silent else b"")
    out += redactor.flush()

    assert not re.search(rb"[0-3]{12}", out)


@settings(max_examples=MANY)
@given(
    body=st.text("aB3", min_size=36, max_size=36).filter(lambda text: "a3a" in text),
    places=CUTS,
    escape=st.integers(4, 39),
    silent=st.booleans(),
)
def test_no_piece_of_a_token_comes_out(
    body: str, places: list[int], escape: int, silent: bool
) -> None:
    """No 12 bytes of a token are published, with a colour inside, cuts and moments of silence."""
    token = b"gh" + b"p_" + body.encode()
    stream = b"x " + token[:escape] + b"\x1b[31m" + token[escape:] + b" y\n"
    redactor = Redactor(rules=Rules())

    out = b""
    for chunk in cut(stream, places):
        out += redactor.feed(chunk) + (redactor.idle() if silent else b"")
    seen = View(out + redactor.flush(), after_space=False, final=True, silent=False).text

    assert not any(token[at : at + 12] in seen for at in range(4, len(token) - 11))
    assert seen.startswith(b"x ")
    assert seen.endswith(b" y\n")


@given(stream=st.lists(HARMLESS, max_size=30).map(b"".join), places=CUTS)
def test_harmless_text_is_left_alone(stream: bytes, places: list[int]) -> None:
    """Where there is nothing that looks like a secret, output is input."""
    assert run(Rules(), cut(stream, places)) == stream


@given(stream=STREAMS)
def test_redacting_again_changes_no_escapes(stream: bytes) -> None:
    """Every escape sequence of the input outside private keys is still in the output."""
    whole = run(Rules(), [stream])

    assert whole.count(b"\x1b[1m") == stream.count(b"\x1b[1m")


# What a terminal is sent, one thing each, and what of it is seen; None takes the last thing back.
SHOWN = {
    b"a": b"a",
    b"b": b"b",
    b" ": b" ",
    b"\n": b"\n",
    b"\x1b[1;31m": b"",
    b"\x1b[K": b"",
    b"\x1b]0;t\x07": b"",
    b"\x1b7": b"",
    b"\x07": b"",
    b"\0": b"",
    b"\x1b[5G": b"\n",
    b"\x1b[2;1H": b"\n",
    b"\x1b[3C": b" ",
    b" \r": b"",  # a shell's line that wraps
    b"\b": None,
}


def show(sent: list[bytes]) -> tuple[list[bytes], list[int], int]:
    """Return what is seen, where it stands in what was sent, and how much before it is gone."""
    seen: list[bytes] = []
    places: list[int] = []
    erased = at = 0
    for each in sent:
        shown = SHOWN[each]
        if shown:
            seen.append(shown)
            places.append(at)
        elif shown is None and seen:
            seen.pop()
            places.pop()
        elif shown is None:
            erased += 1
        at += len(each)
    return seen, places, erased


@given(sent=st.lists(st.sampled_from(sorted(SHOWN)), max_size=20))
def test_a_view_is_what_a_terminal_shows(sent: list[bytes]) -> None:
    """And it leads back to where each byte of it stands."""
    pairs = zip(sent, [*sent[1:], b""])
    if any(one == b" \r" and two == b"\n" for one, two in pairs):
        sent = [b"a" if each == b" \r" else each for each in sent]  # not a wrap, but a line's end
    seen, places, erased = show(sent)

    view = View(b"".join(sent), after_space=False, final=True, silent=False)

    assert view.text == b"".join(seen)
    assert view.erased == erased
    assert [view.find_raw(place) for place in range(len(view.text))] == places
    assert view.keep_escapes(0, view.size).count(b"\x1b") == b"".join(sent).count(b"\x1b")


def spell(value: str) -> dict[str, str]:
    """Return a value as encoders write it."""
    raw = value.encode()
    return {
        "base64": base64.b64encode(raw).decode(),
        "base64-1": base64.b64encode(b"x" + raw + b"yz").decode(),
        "base64-2": base64.b64encode(b"xy" + raw + b"z").decode(),
        "base64url": base64.urlsafe_b64encode(raw).decode(),
        "url": urllib.parse.quote(value, safe=""),
        "json": json.dumps(value)[1:-1],
        "json-twice": json.dumps(json.dumps(value))[3:-3],
        "html": html.escape(value),
        "shell": shlex.quote(value),
        "hex": raw.hex(),
    }


@settings(max_examples=MANY)
@given(value=st.text("ab/+&\"'\\\u00e9", min_size=12, max_size=24), places=CUTS)
def test_known_value_is_found_in_every_encoding(value: str, places: list[int]) -> None:
    """No 12 characters from the middle of an encoded known value come out."""
    rules = Rules([value.encode()])
    for form, written in spell(value).items():
        out = run(rules, cut(f"[{written}]".encode(), places)).decode()

        middle = written[4:-4]
        shown = [at for at in range(max(1, len(middle) - 11)) if middle[at : at + 12] in out]
        assert not shown, form
