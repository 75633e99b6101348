"""Tokens: what the redactor knows by its shape alone, built in and added by the user."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import redaction.tokens
from redact import PatternError, Rules, TokenShape, parse_token_shapes
from redaction.tokens import built_in_shapes
from testing.redaction import FILLER, GITHUB, HEX, redact_both_ways
from testing.tables import each_row


@pytest.mark.parametrize(
    "between", [",", "\t", "\t2026-11-25T10:22:03+00:00\t", "\r\n", " : ", '","']
)
def test_the_secret_behind_a_key_id_of_aws_is_removed(between: str) -> None:
    """It has no shape but its length, so only what stands right behind an id is one."""
    key_id, secret = "AKI" + "AABCDEFGHIJKLMNO2", FILLER[:38] + "/+"

    out = redact_both_ways(f"x {key_id}{between}{secret}\tend {secret}\n".encode()).decode()

    assert out == f"x [REDACTED]{between}[REDACTED]\tend {secret}\n"


def keep_alphabet(text: str, alphabet: bytes) -> bytes:
    """Return the characters of `text` that the alphabet has."""
    return bytes(byte for byte in text.encode() if byte in alphabet)


def make_body(shape: TokenShape) -> bytes:
    """Return what may follow the prefix of a shape."""
    body = keep_alphabet(FILLER * 20, shape.alphabet)
    if len(body) < shape.shortest or not re.search(rb"[0-9]", body):
        body = keep_alphabet((HEX.upper() + HEX) * 16, shape.alphabet)
    return body[: shape.longest or shape.shortest + 4]


@each_row("shape", built_in_shapes())
def test_every_built_in_shape_is_found(shape: TokenShape) -> None:
    """Each prefix in the table, followed by a generated body, is removed wherever it stands."""
    body = make_body(shape)

    out = redact_both_ways(b"see " + shape.prefix + body + b" here")

    assert body[: shape.shortest] not in out
    assert out.startswith(b"see ")
    assert out.endswith(b" here")


def test_the_document_says_how_many_shapes_there_are() -> None:
    """So none disappears unnoticed, and none stands there twice."""
    document = Path(__file__).parents[2] / "docs" / "redaction.md"
    told = re.search(r"the ([0-9]+) shapes in", document.read_text("utf-8"))

    assert told is not None
    assert int(told[1]) == len(built_in_shapes()) == len(set(built_in_shapes()))


def test_no_built_in_shape_is_shorter_than_what_is_looked_at() -> None:
    """A token that is shorter than the shortest run that is looked at would never be found."""
    assert min(len(shape.prefix) + shape.shortest for shape in built_in_shapes()) >= 20


@each_row("before", ["/tmp/", "a-b.", "x~", "\\n", "%3D", "a_"])
def test_a_token_inside_a_word_is_removed(before: str) -> None:
    """A path, a name or an escape may stand before it without a blank."""
    text = f"see {before}{GITHUB} here".encode()

    assert redact_both_ways(text) == f"see {before}[REDACTED] here".encode()


@pytest.mark.parametrize(
    ("shape", "text", "expected"),
    [
        ("acme_[a-z]{4,}", "acme_abcdefgh x", "[REDACTED] x"),
        ("acme_[a-z]{4,6}", "acme_abcdefgh x", "[REDACTED] x"),
        ("acme_[a-z]{4}\\b", "acme_abcd acme_abcde x", "[REDACTED] acme_abcde x"),
        ("acme_[a-z]{300,400}", f"acme_{'ab' * 160} x", "[REDACTED] x"),
    ],
    ids=["open", "bounded", "ends", "long"],
)
def test_the_counts_of_own_shapes(shape: str, text: str, expected: str) -> None:
    """What goes on beyond the count goes too, unless the shape says where it ends."""
    rules = Rules(patterns=parse_token_shapes(shape))

    assert redact_both_ways(text.encode(), rules).decode() == expected


def test_the_built_in_shapes_may_be_copied_into_ones_own_file() -> None:
    """They are examples of the notation; but for a prefix of two characters, all are accepted."""
    table = Path(redaction.tokens.__file__).with_name("tokens.txt").read_text("ascii")
    lines = [line for line in table.splitlines() if not re.match(r"(s\.|SK|YC)\[", line)]

    assert len(parse_token_shapes("\n".join(lines))) == len(built_in_shapes()) - 3


def test_own_shapes_are_removed() -> None:
    """A shape from the user's file is treated like one from the table, words included."""
    shapes = parse_token_shapes("# ours\n\nacme_[a-z]{6,10}\nZX-[0-9]{4}\n")

    out = redact_both_ways(b"a acme_abcdefg b ZX-1234 c acme_abc d", Rules(patterns=shapes))

    assert out == b"a [REDACTED] b [REDACTED] c acme_abc d"


@each_row(
    "line",
    [
        *("(a+)+$", "ab[0-9]{4}", "acme_[0-9]", "acme_[0-9]{4,}\\b", "acme_[0-9]+", "[0-9]{4}"),
        *(
            "acme_[z-a]{4}",
            "acme_[0-9]{9,4}",
            "acme_[0-9]{0}",
            "acme_.{4}",
            "\u00e4\u00f6_[0-9]{4}",
        ),
    ],
)
def test_a_pattern_that_is_no_shape_is_refused_with_its_line(line: str) -> None:
    """What could run away, or cannot be matched, is an error that names the line."""
    with pytest.raises(PatternError) as caught:
        parse_token_shapes(f"acme_[0-9]{{4}}\n{line}\n")

    assert caught.value.line_number == 2
    assert caught.value.message
