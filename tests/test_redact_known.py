"""Values known to be secret: which variables hold them, and every spelling of them."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from redact import KnownValues, Rules, collect_known_values
from testing.redaction import FILLER, MARK, redact_both_ways, run

KNOWN = "c0rr3ct-h0rse/b@ttery+st&ple"
ENCODED = [
    pytest.param(KNOWN, id="plain"),
    pytest.param(base64.b64encode(KNOWN.encode()).decode(), id="base64"),
    pytest.param(base64.b64encode(b"u:" + KNOWN.encode()).decode(), id="base64-second-offset"),
    pytest.param(base64.b64encode(b"u" + KNOWN.encode() + b"!").decode(), id="base64-first-offset"),
    pytest.param(base64.urlsafe_b64encode(KNOWN.encode()).decode(), id="base64url"),
    pytest.param(KNOWN.encode().hex(), id="hex"),
    pytest.param(KNOWN.encode().hex().upper(), id="upper-case-hex"),
    pytest.param("c0rr3ct-h0rse%2Fb%40ttery%2Bst%26ple", id="url-encoded"),
    pytest.param("c0rr3ct-h0rse%2fb%40ttery%2bst%26ple", id="url-encoded-lower-case"),
    pytest.param(KNOWN.replace("&", "&amp;"), id="html"),
]
QUOTED = 'it\'s <a>/"b" & $c`9'
SPELLINGS = [
    pytest.param("it's%20%3Ca%3E%2F%22b%22%20%26%20%24c%609", id="encode-uri-component"),
    pytest.param("it's%20%3Ca%3E/%22b%22%20&%20$c%609", id="encode-uri"),
    pytest.param('it\'s \\u003ca\\u003e/\\"b\\" \\u0026 $c`9', id="json-in-go"),
    pytest.param('it\'s <a>\\/\\"b\\" & $c`9', id="json-in-php"),
    pytest.param('it\'s <a>/\\\\\\"b\\\\\\" & $c`9', id="json-in-json"),
    pytest.param("it&#x27;s &lt;a&gt;/&quot;b&quot; &amp; $c`9", id="html-in-python"),
    pytest.param("it&#39;s &lt;a&gt;/&#34;b&#34; &amp; $c`9", id="html-in-go"),
    pytest.param('it\'s &lt;a&gt;/"b" &amp; $c`9', id="html-text"),
    pytest.param('it\'"\'"\'s <a>/"b" & $c`9', id="shell-single-quotes"),
    pytest.param('it\'s <a>/\\"b\\" & \\$c\\`9', id="shell-double-quotes"),
    pytest.param('it\\\'s\\ \\<a\\>/\\"b\\"\\ \\&\\ \\$c\\`9', id="shell-without-quotes"),
]


@pytest.mark.parametrize("form", SPELLINGS)
def test_known_value_with_quotes_is_removed_in_every_spelling(form: str) -> None:
    """What different encoders make of quotes, slashes and brackets is known for the same value."""
    assert redact_both_ways(f"({form})".encode(), Rules([QUOTED.encode()])) == b"(" + MARK + b")"


@pytest.mark.parametrize("form", ENCODED)
def test_known_value_is_removed_in_every_encoding(form: str) -> None:
    """A known value does not come out in another spelling."""
    out = redact_both_ways(f"see <{form}> end".encode(), Rules([KNOWN.encode()])).decode()

    assert form[4:-4] not in out
    assert out.startswith("see <")
    assert out.endswith("> end")


def test_known_value_with_line_breaks_is_found_across_any_white_space() -> None:
    """A terminal turns a line break into two characters, `set -x` into a space."""
    rules = Rules([b"first part\nab\nlast part"])

    for blank in (b"\n", b"\r\n", b" ", b"\r\n   "):
        text = b"x " + blank.join([b"first part", b"ab", b"last part"]) + b" y"
        assert redact_both_ways(text, rules) == b"x [REDACTED] y"


def test_known_value_that_overlaps_itself_is_found() -> None:
    """A failed match may hold the beginning of the one that succeeds."""
    rules = Rules([b"tok-tok-x9abc"])

    assert run([b"tok-tok-", b"tok-x9abc\n"], rules) == b"tok-[REDACTED]\n"
    assert run([b"tok-tok-tok-x9abc\n"], rules) == b"tok-[REDACTED]\n"


def test_overlapping_and_adjacent_secrets_become_one_mark() -> None:
    """Two known values side by side, or one inside the other, leave one mark."""
    rules = Rules([b"abcdefgh", b"efghijkl", b"mnopqrst"])

    assert redact_both_ways(b"-abcdefghijklmnopqrst-", rules) == b"-[REDACTED]-"


def test_parts_of_known_values_that_cannot_be_read_are_whole_values() -> None:
    """Broken JSON and broken addresses are still secrets."""
    known = collect_known_values(
        {"A_TOKEN": '{"broken-1', "B_DSN": "x://[u:p4ss@h", "C_CREDENTIALS": '[1, "l3af-value"]'}
    )

    assert set(known.values) == {b'{"broken-1', b"x://[u:p4ss@h", b"l3af-value"}


def test_many_short_known_values_are_found() -> None:
    """More of them than are searched for one by one."""
    values = [f"k{number:02d}-v4lue".encode() for number in range(40)]
    rules = Rules(values)

    for value in values:
        assert redact_both_ways(b"see " + value + b" here", rules) == b"see [REDACTED] here"


def test_a_known_value_longer_than_what_is_searched_for_at_once() -> None:
    """It is removed in pieces."""
    value = (FILLER * 60).encode()

    out = redact_both_ways(b"<" + value + b">", Rules([value]))

    assert FILLER[:12].encode() not in out


@pytest.mark.parametrize("size", [500, 700, 1000, 3000])
@pytest.mark.parametrize("shared", [1, 14])
def test_a_long_known_value_that_ends_as_it_begins(size: int, shared: int) -> None:
    """Its end may be the beginning of another one, and is not published for that."""
    middle = hashlib.shake_128(bytes([shared])).hexdigest(size)[: size - 2 * shared]
    value = (FILLER[:shared] + middle + FILLER[:shared]).encode()

    assert redact_both_ways(b"see " + value + b" end", Rules([value])) == b"see [REDACTED] end"


def test_known_values_are_collected_from_secret_names() -> None:
    """Names decide, easy values are left out, and what is too short is told by name."""
    known = collect_known_values(
        {
            "HMAC_SECRET": "0123-abcd-4567",
            "API_TOKENS": "list-0f-t0kens",
            "DATABASE_DSN": "postgres://u:db-p4ssw0rd@h/x",
            "GCP_CREDENTIALS": json.dumps({"id": "ab", "k": {"v": ["json-l3af-value"]}}),
            "STORAGE_CONNECTION_STRING": "Name=x;AccountKey=acc0unt-key-value",
            "SHORT_PASSWORD": "abc12",
            "SSH_KEY": "/home/jane/.ssh/id_rsa",
            "USE_TOKEN": "true",
            "MAX_KEYS": "123456789",
            "EMPTY_SECRET": "",
            "EDITOR": "not-a-secret-1",
        }
    )

    assert b"0123-abcd-4567" in known.values
    assert b"list-0f-t0kens" in known.values
    assert b"db-p4ssw0rd" in known.values
    assert b"json-l3af-value" in known.values
    assert b"acc0unt-key-value" in known.values
    assert known.too_short == ("SHORT_PASSWORD",)
    assert not any(value.count(b"jane") for value in known.values)
    assert b"not-a-secret-1" not in known.values
    assert isinstance(known, KnownValues)


@pytest.mark.parametrize(
    "name",
    [
        *("API_KEY_1", "GITHUB_TOKEN2", "DB_PASSWORD_PROD", "db_passwords_2", "SECRET_KEY_BASE"),
        *("ADMIN_PASS", "BASIC_AUTH", "DB_PW", "appSecret", "githubToken", "NPM_AUTHTOKEN"),
        *("TOKEN", "GPG_PASSPHRASE", "AWS_CREDENTIALS", "REDIS_DSN", "SQL_CONNECTION_STRINGS"),
    ],
)
def test_a_variable_with_such_a_name_holds_a_known_value(name: str) -> None:
    """Also with a number, an environment or in camel case."""
    assert collect_known_values({name: "v4lue-of-it"}).values == (b"v4lue-of-it",)


@pytest.mark.parametrize(
    "name",
    [
        *("PWD", "OLDPWD", "KEYBOARD_1", "AUTHOR", "COMPASS", "TOKENIZER", "SSH_AUTH_SOCK"),
        *("GIT_AUTHOR_NAME", "BYPASS", "TOKENS_PER_RUN2", "XAUTHORITY", "SSH_KEY_NAME", "MONKEY2"),
    ],
)
def test_a_variable_with_another_name_holds_none(name: str) -> None:
    """Its value may stand anywhere in harmless output."""
    known = collect_known_values({name: "v4lue-of-it", f"{name}_X": "abc"})

    assert known.values == ()
    assert known.too_short == ()
