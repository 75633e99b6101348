"""Values known to be secret: which variables hold them, and every spelling of them."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from redact import KnownValues, Rules, collect_known_values
from testing.redaction import FILLER, FOOTER, HEADER, HEX, MARK, redact_both_ways, run
from testing.tables import each_row

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
    pytest.param(
        "it\\u0027s \\u003Ca\\u003E/\\u0022b\\u0022 \\u0026 $c\\u00609", id="json-in-dotnet"
    ),
    pytest.param('it\\u0027s \\u003ca\\u003e/\\"b\\" \\u0026 $c`9', id="json-in-gson"),
    pytest.param(
        "it\\u0027s \\u003Ca\\u003E\\/\\u0022b\\u0022 \\u0026 $c`9", id="json-in-php-for-html"
    ),
    pytest.param('it\'s \\u003Ca\\u003E/\\"b\\" \\u0026 $c`9', id="json-in-django"),
    pytest.param("it''s <a>/\"b\" & $c`9", id="sql"),
    pytest.param('it\'s <a>/""b"" & $c`9', id="csv"),
    pytest.param("it&apos;s &lt;a&gt;/&quot;b&quot; &amp; $c`9", id="xml"),
    pytest.param("it&#x27;s &lt;a&gt;/&quot;b&quot; &amp; $c`9", id="html-in-python"),
    pytest.param("it&#39;s &lt;a&gt;/&#34;b&#34; &amp; $c`9", id="html-in-go"),
    pytest.param('it\'s &lt;a&gt;/"b" &amp; $c`9', id="html-text"),
    pytest.param('it\'"\'"\'s <a>/"b" & $c`9', id="shell-single-quotes"),
    pytest.param('it\'s <a>/\\"b\\" & \\$c\\`9', id="shell-double-quotes"),
    pytest.param('it\\\'s\\ \\<a\\>/\\"b\\"\\ \\&\\ \\$c\\`9', id="shell-without-quotes"),
]


@each_row("form", SPELLINGS)
def test_known_value_with_quotes_is_removed_in_every_spelling(form: str) -> None:
    """What different encoders make of quotes, slashes and brackets is known for the same value."""
    assert redact_both_ways(f"({form})".encode(), Rules([QUOTED.encode()])) == b"(" + MARK + b")"


@each_row("form", ENCODED)
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


@each_row("between", ["\\n", "\\\\n", "\n", "\r\n", " "])
def test_line_ends_that_a_known_value_spells_out_may_be_expanded(between: str) -> None:
    """A key on one line of a file of settings is printed on several."""
    known = collect_known_values({"A_SECRET": "gamma-f1rst\\ndelta-s3cond"})
    text = f"x gamma-f1rst{between}delta-s3cond y".encode()

    assert redact_both_ways(text, Rules(known.values)) == b"x [REDACTED] y"


@pytest.mark.parametrize("quote", ['"', "'", "`"])
def test_quotes_that_were_kept_are_no_part_of_a_known_value(quote: str) -> None:
    """`docker --env-file` keeps them, and what uses the value drops them."""
    known = collect_known_values(
        {"A_SECRET": f"{quote}walnut-Harb0r{quote}", "B_PASSWORD": "'abc'"}
    )

    assert redact_both_ways(b"x walnut-Harb0r y", Rules(known.values)) == b"x [REDACTED] y"
    assert known.unprotected == ("B_PASSWORD",)


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
    value = (FILLER * 30).encode()

    out = redact_both_ways(b"<" + value + b">", Rules([value]))

    assert FILLER[:12].encode() not in out


@each_row("size", [500, 700, 1000, 3000])
@each_row("shared", [1, 14])
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
    assert known.unprotected == ("SHORT_PASSWORD",)
    assert not any(value.count(b"jane") for value in known.values)
    assert b"not-a-secret-1" not in known.values
    assert isinstance(known, KnownValues)


@each_row(
    ("name", "value"),
    [
        *(("DB_PASSWORD", "hunter"), ("DB_PASSWORD", "swordfish"), ("PGPASSWORD", "password")),
        *(("DB_PASSWORD", "1234567"), ("DB_PASSWORD", "12345678"), ("PIN_SECRET", "0000")),
        *(("API_KEY_PROD", "abc-1"), ("STRIPE_KEY", "abc-1"), ("SQL_CONNECTION_STRING", "a=b;c")),
        ("DB_SECRET", '{"username": "admin", "password": "hunter2"}'),
    ],
)
def test_a_secret_that_is_not_looked_for_is_told_by_name(name: str, value: str) -> None:
    """It is too short, a word or a number, and would be removed all over harmless output."""
    assert collect_known_values({name: value}) == KnownValues((), (name,))


@each_row(
    ("name", "value"),
    [
        *(
            ("DB_PASSWORD", "true"),
            ("DB_PASSWORD", "No"),
            ("DB_PASSWORD", "1"),
            ("A_TOKEN", "none"),
        ),
        *(("SSH_KEY", "/home/jane/.ssh/id_rsa"), ("DB_PASSWORD", "./pw"), ("DB_PASSWORD", " ")),
        *(("MAX_THINKING_TOKENS", "8000"), ("SORT_KEY", "created"), ("STRIPE_KEY", "test")),
        ("DB_SECRET", '{"username": "admin", "host": "db-1", "port": 5432}'),
    ],
)
def test_what_is_no_secret_is_not_told(name: str, value: str) -> None:
    """A switch, a path or a number says where a secret is, whether there is one, or how many."""
    assert collect_known_values({name: value}) == KnownValues((), ())


def test_what_is_surely_secret_is_known_whatever_it_looks_like() -> None:
    """Of some variables even a word or a path is looked for, and what is too short is told."""
    environment = {"HMAC_SECRET": "swordfish", "A_TOKEN": "/run/tokens/a", "B_TOKEN": "true"}

    known = collect_known_values(environment, always=tuple(environment))

    assert known == KnownValues((b"swordfish", b"/run/tokens/a"), ("B_TOKEN",))


@each_row(
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


@each_row(
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
    assert known.unprotected == ()


def make_google_account() -> dict[str, str]:
    """Return what Google gives for a service account."""
    return {
        "type": "service_account",
        "project_id": "acme-production-4711",
        "private_key_id": HEX[:40],
        "private_key": f"{HEADER}\n{FILLER}\n{FOOTER}\n",
        "client_email": "deploy-bot@acme-production-4711.iam.gserviceaccount.com",
        "client_id": "104711081512342342342",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/deploy-bot%40acme",
        "universe_domain": "googleapis.com",
    }


UUID = "a88279e9-29a1-ac59-d2ec-88adc52d6476"
RECORDS = [
    pytest.param(make_google_account(), ["private_key"], id="google-service-account"),
    pytest.param(
        {
            "type": "authorized_user",
            "account": "jane.doe@acme.example",
            "client_id": "4711-k3j4h5g6f7d8s9a0.apps.googleusercontent.com",
            "client_secret": "d-FL95Q19q7MQmFpd7hHD0Ty",
            "refresh_token": "1-refresh-t0ken-value",
            "quota_project_id": "acme-production",
        },
        ["client_secret", "refresh_token"],
        id="google-user",
    ),
    pytest.param(
        {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/4711/locations/global/providers/github",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": {"file": "/run/token", "format": {"type": "json-format"}},
        },
        [],
        id="google-federation",
    ),
    pytest.param(
        {
            "apiKey": "AI-pr3tend-key-0815",
            "authDomain": "acme-4711.firebaseapp.com",
            "databaseURL": "https://acme-4711-default-rtdb.firebaseio.com",
            "storageBucket": "acme-4711.appspot.com",
            "messagingSenderId": "123456789012",
            "appId": "1:123456789012:web:a1b2c3d4e5f6a7b8c9",
        },
        ["apiKey"],
        id="firebase",
    ),
    pytest.param(
        {
            "username": "billing_writer",
            "password": "c0rrect-h0rse",
            "engine": "postgresql",
            "host": "billing.c9akciq32xyz.us-east-1.rds.amazonaws.com",
            "port": 5432,
            "dbname": "billing_production",
            "dbInstanceIdentifier": "billing-7f3a9c2d1e",
        },
        ["password"],
        id="aws-secrets-manager",
    ),
    pytest.param(
        {
            "Version": 1,
            "AccessKeyId": "AK-pretend-id-1",
            "SecretAccessKey": "s3cret/access+key",
            "SessionToken": "s3ssion-t0ken",
            "Expiration": "2026-11-26T10:22:03Z",
        },
        ["SecretAccessKey", "SessionToken"],
        id="aws-process",
    ),
    pytest.param(
        {
            "clientId": UUID,
            "clientSecret": "azure~s3cret",
            "subscriptionId": UUID[::-1],
            "tenantId": UUID.replace("a", "b"),
            "activeDirectoryEndpointUrl": "https://login.microsoftonline.com",
            "resourceManagerEndpointUrl": "https://management.azure.com/",
            "sqlManagementEndpointUrl": "https://management.core.windows.net:8443/",
        },
        ["clientSecret"],
        id="azure",
    ),
    pytest.param(
        {"ghcr.io": {"auth": "amFuZTpzM2NyM3Qtdw==", "email": "jane@acme.example"}},
        ["auth"],
        id="docker",
    ),
    pytest.param(
        {"acme": "some-v4lue", "x": "", "admin": "0ther-v4lue"}, ["acme", "admin"], id="plain"
    ),
    pytest.param(
        {"name": "DB_PASSWORD_PRODUCTION", "value": "c0rrect-h0rse"}, ["value"], id="name-and-value"
    ),
    pytest.param(
        {"secret_id": UUID, "session_id": "s3ssion-identifier", "role_id": UUID[::-1]},
        ["secret_id", "session_id"],
        id="ids-that-are-secret",
    ),
    pytest.param(
        {"user": FILLER, "url": f"https://hooks.acme.example/in/{FILLER}"},
        ["user", "url"],
        id="generated",
    ),
    pytest.param(
        {"url": f"https://{HEX[:32].upper()}.gr7.eks.amazonaws.com", "cluster": "acme-production"},
        [],
        id="generated-host",
    ),
    pytest.param(
        {"key": f"{HEADER}\n{FILLER}\n{FOOTER}", "id": f"{HEADER}\n"},
        ["key", "id"],
        id="private-keys",
    ),
    pytest.param(
        {
            "cert": "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl\n-----END CERTIFICATE-----",
            "publicKey": FILLER,
            "deploy": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI jane",
        },
        [],
        id="certificate-and-public-keys",
    ),
]


def list_strings(record: object) -> dict[str, str]:
    """Return the strings of a record and of the records in it, by name."""
    if not isinstance(record, dict):
        return {}
    found = {name: value for name, value in record.items() if isinstance(value, str)}
    for value in record.values():
        found.update(list_strings(value))
    return found


@each_row(("record", "secret"), RECORDS)
def test_of_a_record_of_credentials_only_what_is_secret_is_known(
    record: dict[str, object], secret: list[str]
) -> None:
    """Its ids, hosts and addresses are printed all day, and stay."""
    known = collect_known_values({"ACME_CREDENTIALS": json.dumps(record, indent=2)})

    strings = list_strings(record)
    assert sorted(known.values) == sorted({strings[name].strip().encode() for name in secret})


def test_of_a_public_address_in_a_record_the_password_is_known() -> None:
    """Also of a connection string, and of a record within the record."""
    inner = json.dumps({"password": "inner-p4ss", "host": "db.acme.example"})
    record = {
        "url": "postgres://billing:url-p4ssw0rd@db.acme.example/billing",
        "endpoint": "Endpoint=sb://acme.example/;SharedAccessKey=shar3d-key",
        "name": inner,
    }

    known = collect_known_values({"ACME_SECRET": json.dumps(record)})

    assert set(known.values) == {b"url-p4ssw0rd", b"shar3d-key", b"inner-p4ss"}


def test_a_list_of_values_is_known_by_its_name() -> None:
    """A list without one is of secrets; nesting without end is no JSON."""
    lists = {"scopes": ["https://acme.example/auth", "read-write"], "keys": ["k3y-number-1"]}
    nested = "[" * 100_000

    assert collect_known_values({"A_TOKENS": json.dumps(lists)}).values == (b"k3y-number-1",)
    assert collect_known_values({"A_TOKENS": '["t0ken-number-1"]'}).values == (b"t0ken-number-1",)
    assert collect_known_values({"A_TOKENS": nested}).values == (nested.encode(),)


def test_half_a_character_in_a_record_is_a_value_like_any_other() -> None:
    """JSON may hold what no text can."""
    known = collect_known_values({"A_TOKEN": '{"acme": "v4lue-\\ud800-of-it"}'})

    assert known.values == ("v4lue-\ud800-of-it".encode("utf-8", "surrogatepass"),)
    assert Rules(known.values).redact("a v4lue-\ud800-of-it b") == "a [REDACTED] b"
