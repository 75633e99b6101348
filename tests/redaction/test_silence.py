"""Silence: what the redactor shows of a text that may go on as a secret, and what not.

Secrets are put together at run time: no line of this file has the shape of a live token.
"""

from __future__ import annotations

import pytest

from redact import Redactor, TokenShape
from redaction.syntax import WEBHOOKS
from redaction.tokens import built_in_shapes
from testing.redaction import FILLER, HEX, MARK, RULES, split_bytes
from testing.tables import each_row
from tests.redaction.test_redact import SECRETS
from tests.redaction.test_tokens import make_body

# No piece of a secret of so many bytes comes out.
PIECE_BYTES = 12


def type_slowly(text: str) -> bytes:
    """Return what is published of a text with a moment of silence after each of its bytes."""
    redactor = Redactor(rules=RULES)
    out = b"".join(redactor.feed(byte) + redactor.idle() for byte in split_bytes(text.encode()))
    return out + redactor.flush()


def find_pieces(secret: str, out: bytes) -> list[str]:
    """Return the pieces of a secret that are in the output."""
    pieces = (secret[at : at + PIECE_BYTES] for at in range(len(secret) - PIECE_BYTES + 1))
    return [piece for piece in pieces if piece.encode() in out]


@each_row(("text", "secret"), SECRETS)
def test_a_secret_that_comes_slowly_is_not_shown(text: str, secret: str) -> None:
    """Whatever announces it. What all webhooks of a service have in common is no secret."""
    public = [address.decode() for address in WEBHOOKS if secret.startswith(address.decode())]

    out = type_slowly(text.format(secret) + "\r\n")

    assert find_pieces(secret[len("".join(public)) :], out) == []


GENERATED = [
    pytest.param("<apiToken>\n    {}\n</apiToken>\n", id="element-on-its-own-line"),
    pytest.param("| SecretAccessKey | {} |\n", id="table"),
    pytest.param('"Cmd": [\n  "--requirepass",\n  "{}"\n]\n', id="list-on-lines"),
    pytest.param("token\t{}\n", id="tab"),
    pytest.param("password   {}\n", id="blanks"),
    pytest.param("with password {}, then\n", id="sentence"),
    pytest.param("ALTER ROLE a PASSWORD '{}';\n", id="sql"),
    pytest.param("https://{}@git.example.com/x.git\n", id="address"),
]


@each_row("text", GENERATED)
@each_row("secret", [FILLER, HEX, "k7f2m9x4q1z8w3v6-k7f2m9x4"])
def test_what_looks_generated_is_not_shown(text: str, secret: str) -> None:
    """Where a word would be none, nor is it in the output before it is sure to be a secret."""
    out = type_slowly(text.format(secret))

    assert find_pieces(secret, out) == []
    assert MARK in out


@each_row("shape", built_in_shapes())
def test_a_token_that_comes_slowly_is_not_shown(shape: TokenShape) -> None:
    """Nor is its prefix from 12 bytes on, unless it is of words, as a person types them."""
    prefix, body = shape.prefix.decode(), make_body(shape).decode()

    out = type_slowly(f"see {prefix}{body} here\n")

    shown = out.decode()[len("see ") :].partition("[")[0]
    assert len(shown) < PIECE_BYTES or shown == prefix.lower()
    assert find_pieces(body, out) == []


@each_row(
    ("token", "shown"),
    [
        (f"123456789:AA{FILLER[:33]}", "123456789:AA" + FILLER[:1]),
        (f"abc7Q~{FILLER[:31]}", "abc7Q~" + FILLER[:1]),
        ("ey" + f"J{FILLER[:20]}.{FILLER[:20]}", "ey" + "J"),
        (f"M{FILLER[:25]}.{FILLER[:6]}.{FILLER[:30]}", f"M{FILLER[:10]}"),
        (f"re_{FILLER[:8]}_{FILLER[:20]}", f"re_{FILLER[:8]}"),
        (f"pat{FILLER[:14]}.{HEX}", f"pat{FILLER[:8]}"),
        (HEX[:32] + "-us" + "12", HEX[:11]),
    ],
)
def test_of_a_token_without_a_prefix_little_is_shown(token: str, shown: str) -> None:
    """It begins like a number or a word, which are shown."""
    out = type_slowly(f"see {token} here\n").decode()

    assert out == f"see {shown}[REDACTED] here\n"


HARMLESS = [
    *("ey", "eyes", "1234567", "at 1700000000000", "0f1e2d3", "12:Applying", "10:30:April-first"),
    *("Notifications", "MaintainersList", "MAX_OUTPUT_TOKENS_PER_TURN", "Makefile-generation"),
    *("re_direct_everything", "pattern-matching", "persona_production", "launchdarkly", "s", "gh"),
    *("Password: ", "Forgot your password? ", "Enter the token: ", "[y/N] ", "password for jane: "),
    *("a88279e9-29a1-ac59-d2ec-88adc52d6476", "ssh-ed25519", "AGE-", "AKIA", "MIIE", "-----BEGI"),
    *("https://localhost", "http://my-service-v2-canary:8080", "http://k8s-prod-01.example.com/x"),
    *("git clone https://github.com/AcmeCorp/SomeBigRepository.git", "ssh://git@host.example.com"),
]


@each_row("text", HARMLESS)
def test_harmless_text_is_shown_in_silence(text: str) -> None:
    """All of it if it comes at once; and what a person types byte for byte."""
    redactor, typed = Redactor(rules=RULES), Redactor(rules=RULES)

    assert redactor.feed(text.encode()) + redactor.idle() == text.encode()
    for byte in split_bytes(text.encode()):
        assert typed.feed(byte) + typed.idle() == byte


@each_row("text", ["password {}-7\n", "| api_key | {}-7Qw8eR9t |\n"])
def test_stated_limit(text: str) -> None:
    """Letters alone could be a word that goes on: docs/redaction.md says that they are shown."""
    secret = "correcthorsebattery"

    assert find_pieces(secret, type_slowly(text.format(secret))) != []
