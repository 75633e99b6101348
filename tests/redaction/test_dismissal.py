"""What the searches dismiss in C, so that no judge is asked: nothing that a judge would take for a
secret, or wait for.
"""

from __future__ import annotations

from itertools import product

from redact import Redactor
from testing.redaction import RULES

# In a slice with an address like this nothing is dismissed.
ASKS_ALL = b"see x.webhook.office.com/webhookb2/ about it\n" + b"it is a line of words\n" * 12
ASKS_SOME = ASKS_ALL.replace(b".webhook", b".webfork")
NAMES = ("the token", "DB_PASSWORD", "--token", "ENV API_KEY", "-- `password`", "**secret**", "key")
VERBS = (
    *("", "for ", "for the ", "for the x, ", "For the x, ", "is ", "has been changed to "),
    *("was ", "is now set to ", "currently ", "IS ", "for THE x ", "to to to to to to "),
)
VALUES = (
    *("word", "w", "swordfish", "xqzjkvwq", "QzXkJvWq", "cUrReNtLy", "hunter2x", "Tr0ub4dor&3!"),
    *("'s3cr3t9x'", '"s3cr3t9x"', "`s3cr3t9x`", "deadbeefdead", "word; x", "word)", "word: x"),
    *('null to "s3cr3t9x"', 'null, now "s3cr3t9x"', 'or "s3cr3t9x"', 'or \\"s3cr3t9x\\"'),
    *('or\n  "s3cr3t9x"', "value: s3cr3t9x", "value   = s3cr3t9x", "word = s3cr3t9x"),
    *("x := s3cr3t9x", 'new SecureString("s3cr3t9x")', "word|x", "the 's3cr3t9x'"),
)
ENDS = ("", "\n", "\r\n", " and on", "\nnext\n", "\n  | next\n", " of a line of words" * 14)
HOSTS = (
    *("host", "host.example.com", "host:80", "host:abc9def8", "u:s3cr3t9x@host", "[::1]:s3cr3t9x"),
    *("hooks.slack.com", "discord.com", "x_y.z", "u:s3cr3t9x/y@host", "t0k3nAbCdEfGh12345@host"),
)
PATHS = ("", "/", "/services/T0/B0/abcdefghijkl0123456789", "/api/webhooks/1/ab0123456789abcdef")


def check_lines(bodies: list[str]) -> None:
    """Check texts behind which others follow."""
    lines = "\n".join(bodies).encode()
    for at in range(0, len(lines), 8_000):
        part = lines[at : at + 8_000]
        expected = RULES.redact_bytes(ASKS_ALL + part).splitlines()[13:]
        assert RULES.redact_bytes(ASKS_SOME + part).splitlines()[13:] == expected


def check_last(*pieces: str) -> None:
    """Check a text behind which nothing has come yet: what is shown now, and what later."""

    def list_shown(before: bytes) -> list[bytes]:
        redactor = Redactor(rules=RULES)
        first = redactor.feed(before + pieces[0].encode())
        others = [redactor.feed(piece.encode()) for piece in pieces[1:]]
        return [first[len(before) :], *others, redactor.idle(), redactor.flush()]

    assert list_shown(ASKS_SOME) == list_shown(ASKS_ALL), pieces


def test_prose_behind_a_name_is_dismissed_only_if_no_judge_takes_it() -> None:
    """In the midst of a text, at its end, and cut in two."""
    check_lines(["{} {}{}{}".format(*parts) for parts in product(NAMES, VERBS, VALUES, ENDS)])
    for parts in product(NAMES[:2], VERBS[:4], VALUES, ENDS[:3]):
        check_last("{} {}{}{}".format(*parts))
    for value in VALUES:
        for cut in range(len(value)):
            check_last(f"the token {value[:cut]}", f"{value[cut:]}\n")


def test_an_address_is_dismissed_only_if_no_judge_takes_it() -> None:
    """One with a password, and a webhook, are removed."""
    addresses = ["see https://{}{}{}".format(*parts) for parts in product(HOSTS, PATHS, ENDS)]
    check_lines(addresses)
    for address in addresses:
        check_last(address)


def test_any_word_is_a_password_in_a_file_of_logins() -> None:
    """As in netrc, where it may be on a line of its own."""
    logins = b"machine x.example\n  login jane\n  password swordfi\n" + b"it is a line\n" * 24

    assert bytes(RULES.redact_bytes(logins)).count(b"password [REDACTED]\n") == 1


def test_the_longest_operator_that_may_go_on_is_waited_for() -> None:
    """Of what the last row of the pattern reads, no byte is too many."""
    for operator in (" " * 60, " " * 60 + "a" * 20, " " * 60 + "a" * 20 + ' :"'):
        redactor = Redactor(rules=RULES)
        redactor.feed(b"it is a line\n" * 24 + b"password" + operator.encode())
        assert redactor.held > 0, operator
