"""A live stream: reads, escapes, silence, what is held back, and what happens after a failure.

`|` in a stream marks where one read ends and the next begins.
"""

from __future__ import annotations

import base64
import time

import pytest

from redact import Redacted, RedactedDecoder, Redactor, Rules
from testing.redaction import (
    FILLER,
    FOOTER,
    GITHUB,
    HEADER,
    MARK,
    RULES,
    redact_both_ways,
    run,
    split_bytes,
)
from testing.tables import each_row

STREAMS = [
    # (reads separated by `|`, expected output); {t} is a token, {a}{b} its halves
    pytest.param("x {a}|{b} y", "x [REDACTED] y", id="cut-in-two"),
    pytest.param("x g|h|p|_{f} y", "x [REDACTED] y", id="cut-in-the-prefix"),
    pytest.param("pass|word|=|hun|ter2\n", "password=[REDACTED]\n", id="cut-in-name-and-value"),
    # Held because of its name; `=` is no part of the run in which a token is looked for.
    pytest.param(
        "<apiToken>\n    S|G.a1b2cde3fghijk4=lmno_p_5qr6stuv=wxyz7a8b=9c01def_2",
        "<apiToken>\n    [REDACTED]",
        id="token-at-the-end",
    ),
    pytest.param("{a}\x1b[31m{b} y", "[REDACTED]\x1b[31m y", id="colour-inside"),
    pytest.param("{a}\x1b[3|1m{b} y", "[REDACTED]\x1b[31m y", id="cut-in-colour-inside"),
    pytest.param("{a}\x1b[m\x0f{b} y", "[REDACTED]\x1b[m\x0f y", id="styles-ended-by-terminfo"),
    pytest.param("{a}\x0e{b}\x7f y", "[REDACTED]\x0e\x7f y", id="shift-out-and-delete"),
    pytest.param("pw\x0f|=|{f}\n", "pw\x0f=[REDACTED]\n", id="shift-in-inside-a-name"),
    pytest.param("{a}\x1b]133;C\x07{b} y", "[REDACTED]\x1b]133;C\x07 y", id="osc-inside"),
    pytest.param("{a} \r{b} y", "[REDACTED] \r y", id="wrapped-by-readline"),
    pytest.param("{a} |\r{b} y", "[REDACTED] \r y", id="cut-in-the-wrap"),
    pytest.param("{a}Q\b \b{b} y", "[REDACTED] y", id="typed-over"),
    pytest.param("{a}ZZ\b\x1b[K\b\x1b[K{b} y", "[REDACTED]\x1b[K\x1b[K y", id="typed-over-twice"),
    pytest.param("{t}\r{t}\x1b[K\r\n", "[REDACTED]\r[REDACTED]\x1b[K\r\n", id="drawn-again"),
    pytest.param("\x1b]0;{t}\x07$ ", "\x1b]0;[REDACTED]\x07$ ", id="window-title"),
    pytest.param("\x1b]8;;a://u:{f}@h/\x1b\\x", "\x1b]8;;a://u:[REDACTED]@h/\x1b\\x", id="link"),
    pytest.param(
        "\x1bPtmux;{t}\x07 {a}|{b}\x1b\\x",
        "\x1bPtmux;[REDACTED]\x07 [REDACTED]\x1b\\x",
        id="dcs",
    ),
    pytest.param(
        "\x1b]0;{t}\x07\x1b_pw={f}\x1b\\",
        "\x1b]0;[REDACTED]\x07\x1b_pw=[REDACTED]\x1b\\",
        id="apc",
    ),
    pytest.param(
        "\x1b^x\x1b\\{t}\x1bXy\x1b\\",
        "\x1b^x\x1b\\[REDACTED]\x1bXy\x1b\\",
        id="strings-around",
    ),
    pytest.param("{t}\x1b[2;1Hnext", "[REDACTED]\x1b[2;1Hnext", id="cursor-move-ends-it"),
    *(
        pytest.param(f"{{a}}{hidden}{{b}} y", f"[REDACTED]{hidden} y", id=name)
        for name, hidden in (
            *(("start-of-heading", "\x01"), ("enquiry", "\x05"), ("separator", "\x1c")),
            *(("cancel", "\x18"), ("c1-csi", "\xc2\x9b31m"), ("c1-alone", "\xc2\x88")),
            *(("c1-osc", "\xc2\x9d0;x\xc2\x9c"), ("osc-restarted", "\x1b]0;x\x1b]0;y\x07")),
            *(("osc-cancelled", "\x1b]0;x\x18"), ("csi-restarted", "\x1b[3\x1b[31m")),
            *(("csi-cancelled", "\x1b[3\x18"), ("control-in-csi", "\x1b[3\x0f1m")),
            *(("odd-csi", "\x1b[!3p"), ("escape-and-sign", "\x1b~"), ("dcs-ended", "\x1bPx\x1b[m")),
            *(("title-for-screen", "\x1bkx\x1b\\"), ("c1-dcs", "\xc2\x90x\x1b\\")),
        )
    ),
    pytest.param(
        "\x1b]0;{t}|\x1b|]0;{t}\x07x",
        "\x1b]0;[REDACTED]\x1b]0;[REDACTED]\x07x",
        id="title-restarted",
    ),
    pytest.param("\xc2\x9d0;{t}\xc2|\x9cx", "\xc2\x9d0;[REDACTED]\xc2\x9cx", id="c1-title"),
    pytest.param("\x1b]0;\xc2\xa9{t}\x07", "\x1b]0;\xc2\xa9[REDACTED]\x07", id="title-in-utf-8"),
    pytest.param("\x1b]0;{t} \r ok", "\x1b]0;[REDACTED] \r ok", id="title-that-a-wrap-ends"),
    pytest.param("{t}\x1b]0;{t}", "[REDACTED]\x1b]0;[REDACTED]", id="title-that-never-ends"),
    pytest.param("\xff{t}\xfe", "\xff[REDACTED]\xfe", id="not-utf-8"),
]  # fmt: skip


@each_row(("stream", "expected"), STREAMS)
def test_stream(stream: str, expected: str) -> None:
    """Reads, escapes and typing do not hide a secret, and the escapes inside it survive."""
    text = stream.format(t=GITHUB, a=GITHUB[:20], b=GITHUB[20:], f=GITHUB[4:])
    chunks = [part.encode("latin-1") for part in text.split("|")]

    assert run(chunks) == expected.encode("latin-1")
    assert run(split_bytes(b"".join(chunks))) == expected.encode("latin-1")


@pytest.mark.parametrize("end", ["", " ", " \r", "\x1b[", "\x1b]0;x", "\xc2"])
def test_a_whole_text_may_end_within_something(end: str) -> None:
    """What only its end shows to be a token is one, also before half of a sequence or of a wrap."""
    token = "SG" + ".a1b2cde3fghijk4=lmno_p_5qr6stuv=wxyz7a8b=9c01def_2"

    out = RULES.redact_bytes((token + end).encode("latin-1"))

    assert out == MARK + end.encode("latin-1")


def test_clipboard_is_redacted() -> None:
    """What a program copies to the clipboard is decoded, redacted and encoded again."""
    copied = base64.b64encode(b"key " + GITHUB.encode())

    out = run([b"\x1b]52;c;" + copied + b"\x07"])

    assert base64.b64decode(out[7:-1]) == b"key " + MARK


def test_silence_shows_a_prompt_and_never_a_body() -> None:
    """A moment of silence publishes what could only become a prefix, and nothing of a secret."""
    redactor = Redactor(rules=RULES)

    assert redactor.feed(b"Password: ") + redactor.idle() == b"Password: "
    assert redactor.feed(b"hun") + redactor.idle() == b""
    assert redactor.feed(b"ter2") + redactor.idle() == b""
    assert redactor.feed(b"\r\n") == MARK + b"\r\n"


@pytest.mark.parametrize("before", ["--password ", "ENV API_KEY ", "define('DB_PASSWORD', '"])
def test_a_password_that_begins_like_a_word_is_not_shown_in_silence(before: str) -> None:
    """What surely takes a value holds it from its first letter."""
    redactor = Redactor(rules=RULES)

    out = redactor.feed(b"tool " if before[0] == "-" else b"") + redactor.feed(before.encode())
    out += redactor.feed(b"horse") + redactor.idle()
    assert b"h" not in out.lower().replace(b"--password", b"")
    out += redactor.feed(b"battery7") + redactor.idle() + redactor.feed(b"' \n") + redactor.flush()

    assert b"horse" not in out
    assert MARK in out


def test_a_token_typed_slowly_is_removed() -> None:
    """Silence after each key does not let a token out."""
    redactor = Redactor(rules=RULES)
    out = b""

    for byte in split_bytes(b"$ echo " + GITHUB.encode() + b"\r\n"):
        out += redactor.feed(byte) + redactor.idle()

    assert GITHUB[6:18].encode() not in out
    assert out.endswith(MARK + b"\r\n")


def test_silence_keeps_an_unfinished_escape_sequence() -> None:
    """Half an escape sequence is of no use to a terminal."""
    redactor = Redactor(rules=RULES)

    assert redactor.feed(b"x\x1b[3") + redactor.idle() == b"x"
    assert redactor.feed(b"1my\n") == b"\x1b[31my\n"


@each_row(
    "start", [b"token=", b"\x1b]0;", b"\x1bP", HEADER.encode() + b"\n", b"a://b:", b"ey" + b"J"]
)
def test_never_holds_more_than_4_kilobytes(start: bytes) -> None:
    """What never ends is not held for ever."""
    redactor = Redactor(rules=RULES)

    redactor.feed(start)
    for _ in range(100):
        redactor.feed(b"x1Y" * 333)
        assert redactor.held <= 4096


@pytest.mark.parametrize("begin", ["\x9d", "\x90", "\x9d0;"])
def test_beginnings_of_strings_are_read_once(begin: str) -> None:
    """Each string would be read to the end of the line and back, for seconds, if it did not end at
    the next beginning. Now it takes a few hundredths.
    """
    text = (begin * 1000 + "\n").encode() * 4
    before = time.process_time()
    redactor = Redactor(rules=RULES)

    out = b"".join(redactor.feed(text[at : at + 4096]) for at in range(0, len(text), 4096))

    assert out + redactor.flush() == text
    assert time.process_time() - before < 0.6


def test_a_failure_inside_drops_the_rest_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception publishes a mark instead of the text, is counted, and ends with the line."""
    redactor = Redactor(rules=Rules())
    redactor.feed(b"before\n")

    with monkeypatch.context() as broken:
        broken.setattr(redactor._rules, "judge_all", None)
        assert redactor.feed(b"raw text") == MARK
    assert redactor.feed(b" still the line\nnext\n") == b"\nnext\n"
    assert redactor.failures == 1


def test_a_failure_inside_a_private_key_stays_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an exception within a private key the key is still swallowed to its end."""
    redactor = Redactor(rules=Rules())
    redactor.feed(f"{HEADER}\n{FILLER}".encode())

    with monkeypatch.context() as broken:
        broken.setattr("redaction.private_keys.PrivateKey.swallow", None)
        assert redactor.feed(b"more") == MARK
    out = redactor.feed(f"{FILLER}\n{FILLER}{FILLER}\n{FOOTER}\nafter\n".encode())
    assert out.find(FILLER[:12].encode()) < 0
    assert out.endswith(b"after\n")
    assert redactor.failures == 1


@pytest.mark.parametrize("escape", ["\x1b[" + "38;2;10;20;30;" * 9 + "1m", "\x1b" + "+" * 90 + "t"])
def test_a_long_escape_sequence_after_a_secret_is_kept_once(escape: str) -> None:
    """Wherever a read ends, a sequence of any length behind a removed span comes out as it was."""
    stream = f"token=abc1 {GITHUB}{escape}".encode()
    expected = b"token=[REDACTED] [REDACTED]" + escape.encode()

    for at in range(len(stream)):
        assert run([stream[:at], stream[at:]]) == expected


def test_flush_makes_the_redactor_as_new() -> None:
    """Nothing of one stream reaches into the next."""
    redactor = Redactor(rules=RULES)

    assert redactor.feed(b"password=") + redactor.flush() == b"password="
    assert redactor.feed(b"hunter2\n") == b"hunter2\n"
    assert redactor.held == 0


def test_text_with_lone_surrogates_is_redacted() -> None:
    """A string that no encoding can carry does not stop the redactor."""
    assert RULES.redact("\ud800 token=abc1") == "\ud800 token=[REDACTED]"


def test_decoder_holds_a_split_character_and_replaces_an_invalid_one() -> None:
    """Text comes out whole characters at a time."""
    decoder = RedactedDecoder()

    assert decoder.feed(Redacted(b"h\xc3")) == "h"
    assert decoder.feed(Redacted(b"\xa9\xff.")) == "\u00e9\ufffd."
    assert decoder.feed(Redacted(b"\xe2\x82")) == ""
    assert decoder.flush() == "\ufffd"


def test_clipboard_that_is_not_base64_passes() -> None:
    """What cannot be decoded cannot be redacted, and is no text for a person either."""
    stream = b"\x1b]52;c;?\x07x"

    assert redact_both_ways(stream) == stream
