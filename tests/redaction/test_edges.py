"""The redactor where its rules end: what is just no secret, and what arrives in the wrong pieces.

Secrets are put together at run time: no line of this file has the shape of a live token.
"""

from __future__ import annotations

import re

import pytest

from redact import (
    KnownValues,
    PatternError,
    Redactor,
    Rules,
    collect_known_values,
    parse_token_shapes,
)
from redaction.known import KNOWN_BYTES, PIECE_BYTES
from testing.redaction import FILLER, FOOTER, HEADER, MARK, RULES, redact_both_ways
from testing.tables import each_row


def redact_text(text: str, rules: Rules = RULES) -> str:
    """Return the output for a text, the same in one read and byte by byte."""
    return redact_both_ways(text.encode(), rules).decode()


def knowing(*values: str) -> Rules:
    """Return rules that know these values."""
    return Rules([each.encode() for each in values])


# --- names and their values ----------------------------------------------------------------------


@each_row(
    ("text", "published"),
    [
        ("'password: ' + value + ' ok'", "'password: ' + value + ' ok'"),
        ('title("token: ", name, "x")', 'title("token: ", name, "x")'),
        ('password="hunter(2"', 'password="[REDACTED]"'),
        ('password="read(${HOME})"', 'password="read(${HOME})"'),
        ('password="your.name(here"', 'password="your.name(here"'),
    ],
)
def test_text_in_quotes(text: str, published: str) -> None:
    """Code after the end of a text is none of its value; a value with a bracket is no code."""
    assert redact_text(text) == published


@each_row(
    ("text", "published"),
    [
        ("my_key=ab-CD-12-ef-GH-34-ij\n", "my_key=[REDACTED]\n"),
        ("my_key=ab-cd-12-ef-gh-34-ij\n", "my_key=ab-cd-12-ef-gh-34-ij\n"),
        ("my_key=hello,world!\n", "my_key=hello,world!\n"),
        ("sort_key=ab-CD-12-ef-GH-34-ij\n", "sort_key=ab-CD-12-ef-GH-34-ij\n"),
        ("password: xxxx-end\n", "password: xxxx-end\n"),
        (f"Bearer {FILLER}\n", "Bearer [REDACTED]\n"),
        (f"forBearer {FILLER}\n", f"forBearer {FILLER}\n"),
        (f"curl --USER me:{FILLER}\n", f"curl --USER me:{FILLER}\n"),
        ("see http://host:name#part\n", "see http://host:name#part\n"),
        ("PuTTY-User-Key-File-3 is its format\n", "PuTTY-User-Key-File-3 is its format\n"),
        ("| password | Tr0ub4dor&3! ", "| password | [REDACTED] "),
        (f"Authorization: {FILLER}\n", "Authorization: [REDACTED]\n"),
        ("Authorization: required\n", "Authorization: required\n"),
        ("ldapsearch -x -w Tr0ub4dor3 -b dc=x\n", "ldapsearch -x -w [REDACTED] -b dc=x\n"),
    ],
)
def test_names_that_say_little(text: str, published: str) -> None:
    """What may be a secret's name needs a value that looks generated; a word's end is no name."""
    assert redact_text(text) == published


def test_variables_without_a_word_in_their_name() -> None:
    """They say nothing of their values."""
    assert collect_known_values({"_": FILLER, "_1": FILLER}) == KnownValues((), ())


def test_an_address_without_a_token_is_no_webhook() -> None:
    """What follows the address of a webhook is its secret once it is long enough for one."""
    address = "https://hooks.sl" + "ack.com/services/"

    assert redact_text(f"see {address}T00 here") == f"see {address}T00 here"
    assert redact_text(f"see {address}T00/B00/{FILLER} here") == "see https://[REDACTED] here"


def test_words_of_a_command_that_are_one_value_go_together() -> None:
    """Where the line says that several words are one secret, none of them is shown."""
    words = ["login", "--password", "'opensesame", "and", "more'"]

    text = RULES.redact_json(["run", *words, "two words"])

    assert not [word for word in words[2:] if word in text]


# --- private keys --------------------------------------------------------------------------------


def test_a_footer_late_on_its_line_ends_the_key() -> None:
    """A line that is longer than what it is judged by is dropped with the footer at its end."""
    key = f"{HEADER}\n{FILLER}\n{'A1b2' * 100}{FOOTER}"

    assert redact_text(f"before\n{key}\nafter\n") == "before\n[REDACTED]\nafter\n"


def test_a_known_value_with_a_key_in_it() -> None:
    """The value's own beginning goes too, although all of it is decided only after the header."""
    body = "\n".join([FILLER + FILLER[:24]] * 3)
    value = f"deploy={HEADER}\n{body}\n{FOOTER}"
    redactor = Redactor(rules=knowing(value))

    begun = redactor.feed(f"x {value[:90]}".encode())
    ended = redactor.feed(f"{value[90:]} y\n".encode()) + redactor.flush()

    assert begun == b"x "
    assert re.fullmatch(rb"(\[REDACTED\])+ y\n", ended)


# --- known values --------------------------------------------------------------------------------


def test_the_end_of_a_long_value_is_removed() -> None:
    """A long value is looked for in pieces, and nothing stays of what is left after the last."""
    numbers = "".join(f"{number:x}g" for number in range(PIECE_BYTES))
    for left in range(1, KNOWN_BYTES + 1):
        value = numbers[: PIECE_BYTES + left]

        assert redact_text(f"see {value} end", knowing(value)) == "see [REDACTED] end"


def test_a_value_too_short_to_be_looked_for() -> None:
    """It would be removed all over harmless output."""
    assert redact_text("a short word", knowing("short")) == "a short word"


def test_a_value_of_two_lines_that_goes_on_differently() -> None:
    """Its lines count one by one; a word that is stuck to the first is none of it."""
    rules = knowing("correct-horse\nstaple")

    assert redact_text("correct-horse \r\n staple.", rules) == "[REDACTED]."
    assert redact_text("correct-horsestaple", rules) == "[REDACTED]staple"


def test_a_pattern_that_no_character_fits() -> None:
    """A class of what is never printed is refused, with the line that has it."""
    with pytest.raises(PatternError, match="line 2: the character class is empty"):
        parse_token_shapes("acme_[a-f]{20,64}\nother_[\x7f]{20,64}\n")


# --- what the terminal shows ---------------------------------------------------------------------


def test_a_word_wrapped_after_a_pause() -> None:
    """The space that a shell types over to wrap a line may be shown before the wrap has come."""
    redactor = Redactor(rules=knowing("correcthorse"))
    assert redactor.feed(b"cor ") + redactor.idle() == b"cor "

    rest = redactor.feed(b"\rrecthorse\n") + redactor.flush()

    assert rest == b"\r" + MARK + b"\n"


def test_a_line_that_begins_anew_after_a_pause() -> None:
    """Without a secret around the wrap every byte stays as it came."""
    redactor = Redactor(rules=RULES)
    assert redactor.feed(b"hello ") + redactor.idle() == b"hello "

    assert redactor.feed(b"\rworld\x07\n") + redactor.flush() == b"\rworld\x07\n"
