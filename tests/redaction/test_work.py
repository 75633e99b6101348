"""How much the redactor reads of what it is given."""

from __future__ import annotations

import pytest

from testing.counted_patterns import import_counted
from testing.redaction import HEADER
from testing.tables import each_row

EXPENSIVE = (
    *("-----BEGIN\n", "token=", "password: ", "://a:", "Bearer ", "eyJ.", "a", "-", "a1", "x=1&"),
    *("token is is ", "the password for the x ", "key word\n", "://a.b/ ", "://a.b:1"),
    *("gh" + "p_", "\x1b[", "\x1b]0;", "key key ", "MNO.", "cookie: a=", '"secret":"', HEADER),
)


def test_work_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the text is four times as much to read, for text made to be dear."""
    redact, work = import_counted("redact", monkeypatch, "redaction")
    rules = redact.Rules()
    rules.redact("the first text makes the rules, which is not counted")

    @each_row("piece", EXPENSIVE)
    def check(piece: str) -> None:
        redactor = redact.Redactor(rules=rules)

        def measure(size_bytes: int) -> int:
            before = work.done
            redactor.feed(piece.encode() * (size_bytes // len(piece)))
            redactor.flush()
            return int(work.done - before)

        # The rest of a slice is judged anew after each private key: for keys it takes whole slices.
        size_bytes = redact.SLICE_BYTES if piece == HEADER else 2_000
        assert measure(4 * size_bytes) <= 4.5 * measure(size_bytes)
        assert redactor.failures == 0

    check()
