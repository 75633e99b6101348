"""Private keys: one mark for each, whatever a program prints around its lines."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable

import pytest

from redact import Redactor
from testing.redaction import (
    BODY,
    FILLER,
    FOOTER,
    HEADER,
    HEX,
    KEY,
    LINES,
    MARK,
    RULES,
    TAIL,
    redact_both_ways,
    run,
)
from testing.tables import each_row

KEYS = [
    pytest.param(KEY, MARK.decode(), id="plain"),
    pytest.param(KEY.replace("\r\n", "\n    "), MARK.decode(), id="indented"),
    pytest.param("\n".join("+" + line for line in KEY.splitlines()), "+[REDACTED]", id="diff"),
    pytest.param(
        "\n".join(f"  {n}\t{line}" for n, line in enumerate(KEY.splitlines())),
        "  0\t[REDACTED]",
        id="numbered",
    ),
    pytest.param(json.dumps({"k": KEY}), '{"k": "[REDACTED]"}', id="json"),
    pytest.param(
        KEY.replace(BODY, f"Proc-Type: 4,ENCRYPTED\r\n\r\n{BODY}"), MARK.decode(), id="encrypted"
    ),
]


@each_row(("text", "expected"), KEYS)
def test_private_key_becomes_one_mark(text: str, expected: str) -> None:
    """A private key is replaced by one mark however it is laid out; the text around it stays."""
    out = redact_both_ways(f"$ cat id\r\n{text}\r\n$ ls\r\n".encode())

    assert out == f"$ cat id\r\n{expected}\r\n$ ls\r\n".encode()


# What stands before line `n`; `sign` and `plus` differ on the first.
LEADS = [
    pytest.param("{n:6}\u2192", id="read-tool"),
    pytest.param("{n:6}\t", id="cat-n"),
    pytest.param("{n}:", id="grep-n"),
    pytest.param("deploy/id_rsa:{n}:", id="grep-file"),
    pytest.param("id_rsa{sign}{n}{sign}", id="grep-after"),
    pytest.param("app-1  | ", id="compose"),
    pytest.param("2026-11-25T10:22:{n:02}.123Z ", id="ci-time"),
    pytest.param("[pod/web-7f9c{n}/app] ", id="kubectl-prefix"),
    pytest.param("Nov 25 10:22:{n:02} host app[12]: ", id="journal"),
    pytest.param("#12 {n}.{n}3 ", id="buildkit"),
    pytest.param("a1b2c3d4 (Jane Doe 2026-11-25 10:22:03 +0000 {n:2}) ", id="blame"),
    pytest.param("> ", id="quoted"),
    pytest.param("\u2502 ", id="box"),
    pytest.param("-", id="removed"),
    pytest.param("{n:5}  +", id="numbered-diff"),
    pytest.param("    // ", id="comment"),
    pytest.param("INFO:root:", id="logging"),
    pytest.param("web_1 \u2502 [{n:02}:00] stdout F ", id="several-at-once"),
    pytest.param('key {plus}= "', id="code"),
]


@each_row("lead", LEADS)
@each_row("ending", ["\n", "\r\n", " \u2502\r\n"])
def test_private_key_behind_a_prefix_on_every_line(lead: str, ending: str) -> None:
    """What a program puts before each line hides neither the body nor the line that ends it, and
    what the program prints afterwards shows.
    """
    leads = [
        lead.format(n=n + 7, sign="-" if n else ":", plus="+" if n else "")
        for n in range(len(LINES))
    ]
    lines = [f"{before}{line}{ending}" for before, line in zip(leads, LINES)]

    whole = redact_both_ways("".join(lines).encode()).decode()
    cut_off = redact_both_ways("".join([*lines[:-2], lines[-1]]).encode()).decode()

    assert whole == f"{leads[0]}[REDACTED]{ending}{lines[-1]}"
    assert cut_off == f"{leads[0]}[REDACTED]{lines[-1]}"


LINE_ENDS = ["\\n", "\\r\\n", "\\\\n", "\\\\r\\\\n", "\\u000a", "\\u000D\\u000A", "\\x0a", "\\012"]
LINE_ENDS += ["%0A", "%0d%0a", "%250A", "&#10;", "&#xA;", "&#13;&#10;", "<br>", "<br />\n", "$\n"]
LINE_ENDS += ["^M$\n", "</span>\n<span>", "\\n'\n'", '\\n" +\r\n    "', "\\n\\\n", " "]


@each_row("line_end", LINE_ENDS)
@each_row("quote", ["", '"', "'"])
def test_private_key_with_its_line_ends_written_out(line_end: str, quote: str) -> None:
    """However an encoder writes the end of a line, the key goes as a whole, cut off or not."""
    key = line_end.join([HEADER, *BODY.splitlines(), FOOTER])
    cut_off = line_end.join([HEADER, *BODY.splitlines()])

    whole = redact_both_ways(f"k={quote}{key}{quote}, n=2\nnext line\n".encode()).decode()
    assert whole == f"k={quote}[REDACTED]{quote}, n=2\nnext line\n"
    part = redact_both_ways(f"k={quote}{cut_off}{quote}\nnext line\n".encode()).decode()
    assert part == f"k={quote}[REDACTED]next line\n"


@pytest.mark.parametrize("encode", [urllib.parse.quote, urllib.parse.quote_plus])
def test_private_key_in_a_url(encode: Callable[[str], str]) -> None:
    """Encoded for an address its header has no spaces."""
    out = redact_both_ways(f"GET /x?d={encode(KEY)}&n=1\n".encode()).decode()

    assert out == "GET /x?d=[REDACTED]&n=1\n"


def test_private_key_in_lines_of_json() -> None:
    """Each line of the key is a record of its own, with more fields behind it."""
    raw = "".join(
        json.dumps({"log": line + "\n", "stream": "stdout", "time": f"2026-11-25T10:22:0{n}.1Z"})
        + "\n"
        for n, line in enumerate(LINES)
    )

    out = redact_both_ways(raw.encode()).decode()

    assert FILLER[:12] not in out
    assert TAIL not in out
    assert out.startswith('{"log": "[REDACTED]')
    assert LINES[-1] in out


def test_private_key_in_records_without_line_ends() -> None:
    """A field that ends with the line of the key hides nothing either."""
    raw = "".join(f'{{"msg":"{line}","t":"10:22:0{n}"}}\n' for n, line in enumerate(LINES))

    out = redact_both_ways(raw.encode()).decode()

    assert FILLER[:12] not in out
    assert TAIL not in out
    assert LINES[-1] in out


def test_private_key_in_a_diff_of_pytest() -> None:
    """Lines that point at what differs belong to the key."""
    lines = [f"E       - {line}\nE       ?  ++ ^^^\n" for line in LINES[:-2]]

    out = redact_both_ways("".join([*lines, "E       next line, 2 words\n"]).encode()).decode()

    assert out == "E       - [REDACTED]E       next line, 2 words\n"


def test_private_key_in_the_format_of_ssh_com() -> None:
    """Its dashes are four and a space."""
    header, footer = (
        f"---- {word} SSH2 ENCRYPTED PRIV" + "ATE KEY ----" for word in ("BEGIN", "END")
    )
    raw = f"$ cat\n{header}\nComment: x\n{BODY}\n{footer}\n$ ls\n"

    assert redact_both_ways(raw.encode()) == b"$ cat\n" + MARK + b"\n$ ls\n"


def test_private_key_in_numbers() -> None:
    """What openssl prints of a key with `-text` is the key."""
    pairs = "    " + ":".join(HEX[at : at + 2] for at in range(0, 30, 2))
    lines = ["Private-Key: (2048 bit, 2 primes)", "modulus:", f"{pairs}:", pairs]
    lines += ["publicExponent: 65537 (0x10001)", "privateExponent:", f"{pairs}:", pairs]
    raw = "\r\n".join([*lines, "prime1:", pairs, "writing RSA key", ""])

    out = redact_both_ways(raw.encode()).decode()

    assert out == "Private-Key:[REDACTED]writing RSA key\r\n"
    public = raw.replace("Private", "Public")
    assert redact_both_ways(public.encode()).decode() == public


def test_a_key_in_puttys_format_is_removed() -> None:
    """Its header is a name like any other, its body base64 like any other."""
    lines = ["PuTTY-User-Key-File-3: ssh-ed25519", "Encryption: none", "Comment: jane"]
    lines += ["Public-Lines: 1", FILLER + FILLER[:23], "Private-Lines: 1", FILLER[:40] + "aB3d"]
    lines += ["Private-MAC: " + HEX, "$ ls -l", ""]

    for before in ("", "$ cat key.ppk\r\n"):
        out = redact_both_ways((before + "\r\n".join(lines)).encode()).decode()

        assert FILLER[:12] not in out
        assert HEX[:12] not in out
        assert out == before + "PuTTY-User-Key-File-3:[REDACTED]$ ls -l\r\n"


def test_unterminated_private_key_ends_at_the_first_line_that_is_no_part_of_it() -> None:
    """Ordinary output after half a key shows again."""
    out = redact_both_ways(f"{HEADER}\r\n{BODY}\r\n$ ls -l\r\n".encode())

    assert out == MARK + b"$ ls -l\r\n"


def test_unterminated_private_key_is_not_kept() -> None:
    """However long a key goes on, next to nothing of it is held."""
    redactor = Redactor(rules=RULES)
    redactor.feed(f"{HEADER}\r\n".encode())

    for _ in range(500):
        assert redactor.feed(f"{FILLER}{FILLER}\r\n".encode()) == b""
        assert redactor.held <= 512


def test_a_key_that_never_ends_gives_way_to_short_lines() -> None:
    """After more lines than any key has, a list of words shows again."""
    lines = f"{FILLER}{FILLER[:23]}\n" * 2001
    out = run([f"{HEADER}\n{lines}word\nanother\n".encode()])

    assert out == MARK + b"word\nanother\n"
