"""JSON: redacted string by string, with what its structure tells."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from testing.gateways.wire import redacted_in_the_field
from testing.redaction import FILLER, GITHUB, HEADER, RULES
from testing.tables import each_row


def test_json_stays_json() -> None:
    """Strings are redacted one by one, by their own look or by their key."""
    value = {
        "password": "hunter2",
        "n": [1, None, f"x {GITHUB}"],
        'q"': {"text": 'say "token=ab1"'},
    }

    cleaned = json.loads(RULES.redact_json(value))

    assert cleaned == {
        "password": "[REDACTED]",
        "n": [1, None, "x [REDACTED]"],
        'q"': {"text": 'say "token=[REDACTED]"'},
    }
    assert " " not in RULES.redact_json({"a": [1, 2], "b": "c"})


def test_json_tells_what_a_string_alone_does_not() -> None:
    """The word after an option, and a value that has its name beside it or around it."""
    value = {
        "argv": ["mysql", "--password", FILLER, "-e", "select 1", "--token", f"two words {FILLER}"],
        "curl": ["curl", "-u", f"me:{FILLER}", "--retry", 3, "https://host/"],
        "env": [{"name": "DB_PASSWORD", "value": FILLER}, {"name": "HOME", "value": "/root"}],
        "headers": [{"Name": "Authorization", "Value": FILLER}],
        "db_password": {"value": FILLER, "type": "string", "sensitive": True},
        "tokens": [FILLER, FILLER],
        "password": 7,
        "login": {"password": 471147, "tokens": 471147, "secret": True},
    }

    cleaned = json.loads(RULES.redact_json(value))

    mark = "[REDACTED]"
    assert cleaned == {
        "argv": ["mysql", "--password", mark, "-e", "select 1", "--token", mark],
        "curl": ["curl", "-u", f"me:{mark}", "--retry", 3, "https://host/"],
        "env": [{"name": "DB_PASSWORD", "value": mark}, {"name": "HOME", "value": "/root"}],
        "headers": [{"Name": "Authorization", "Value": mark}],
        "db_password": {"value": mark, "type": "string", "sensitive": True},
        "tokens": [mark, mark],
        "password": 7,
        "login": {"password": mark, "tokens": 471147, "secret": True},
    }


@pytest.mark.parametrize("sign", ["", "+", "> "])
def test_a_private_key_in_many_strings_of_json(sign: str) -> None:
    """A patch has a string for each line; what comes after the key is shown."""
    body = [FILLER[at:] + FILLER[:at] + FILLER[: 64 - len(FILLER)] for at in range(9)]
    key = [HEADER, *body, HEADER.replace("BEGIN", "END")]
    lines = [f"{sign}{line}" for line in ("before", *key, "after it")]
    hunks = [{"op": "add", "text": line} for line in lines]

    for value in ({"lines": lines}, {"hunks": hunks, "end": "the end"}, lines[:-4]):
        text = RULES.redact_json(value)

        assert "before" in text
        assert not [line for line in key[1:-1] if line[:12] in text]
        if not isinstance(value, list):
            assert "after it" in text
            assert "null" not in text


@each_row("value", ["value", "values", "val", "content", "data", "Value"])
@each_row("name", ["name", "key", "variable", "field", "header", "Name"])
def test_an_object_of_json_names_its_value(name: str, value: str) -> None:
    """Whichever words it has for both."""
    cleaned = RULES.redact_json([{name: "DB_PASSWORD", value: FILLER, "other": "kept"}])

    assert json.loads(cleaned) == [{name: "DB_PASSWORD", value: "[REDACTED]", "other": "kept"}]


# What gateways in the field look for, and what separates it.
PIECES = st.sampled_from(
    [
        *("token", "Secret", "AUTH", "api_key", "api-key", "apiKey", "bearer", "credential"),
        *("-----BEGIN", "-----END x-----", "-", "sk-", "ghp_"),
        *(" ", "=", ":", "\t", "\n", "\u2003", '"', "'", "\\", "x.y"),
    ]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=20)


@given(st.fixed_dictionaries({"command": TEXTS, "commands": st.tuples(TEXTS), "end": TEXTS}))
@example({"commands": ["gh auth status"], "workingDir": "/home/me/my secret project"})
@example({"command": "gh api --api-key x", "workingDir": "/tmp/x-api-key: y"})
@example({"command": "look for -----BEGIN", "workingDir": "/tmp/-----END x-----"})
@example({"end": "sk-" + "token" * 4})
def test_a_gateway_in_the_field_finds_nothing_in_a_marker(value: Any) -> None:
    """Its own redaction, by the patterns of each release, leaves the values as they were sent."""
    sent = RULES.redact_json(value)

    # Words behind this prefix, which are no token here, are one there, and gone as a whole.
    left = re.sub("sk-[a-zA-Z0-9]{20,}", "[REDACTED]", sent)
    assert json.loads(redacted_in_the_field(sent)) == json.loads(left)
