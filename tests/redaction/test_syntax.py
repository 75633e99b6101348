"""Syntax: the tables of flags, phrases and webhooks, with a test row for each of their rows.

Secrets are put together at run time: no line of this file has the shape of a live token.
"""

from __future__ import annotations

import pytest

from redaction import syntax
from redaction.syntax import FLAG_COMMANDS, PHRASES, WEBHOOKS
from testing.redaction import FILLER, HEX, RULES, redact_both_ways
from testing.tables import each_row

SECRET = "s3cr3t-word"
MNEMONIC = " ".join(["abandon", "ability", "able", "about"] * 3)

# For each row, in the order of the table: its flags, with one of its commands.
FLAGS = (
    ("curl -uadmin:{} h", "wget -u admin:{} h", "curl --user admin:{} h", "curl --user=admin:{} h"),
    (
        *("curl -Uadmin:{} h", "curl -U admin:{} h", "curl --proxy-user admin:{} h"),
        "curl --proxy-user=admin:{} h",
    ),
    ("curl -b sid={} h",),
    ("smbclient //h/s -U jane%{}", "rpcclient -U jane%{} h", "net ads -U jane%{}"),
    ("http -a jane:{} h", "xh -a jane:{} h"),
    ("mysql -uroot -p{} db", "mariadb -p{} db", "7z x -p{} a.7z"),
    ("mongosh -p {} h", "twine upload -p {}", "docker login -u me -p {} h"),
    ("sqlcmd -S h -P {}", "unzip -P {} a.zip"),
    ("redis-cli -h h -a {} ping",),
    ("ldapsearch -x -w {}",),
)
PHRASE_TEXTS = (
    ("CREATE USER scott IDENTIFIED BY {};", SECRET),
    ("> AUTH PLAIN {}", "AGplYW5lAHMzY3IzdA" + "=="),
    ("127.0.0.1:6379> AUTH {}", SECRET),
    ("mnemonic: {}", MNEMONIC),
    ('ConvertTo-SecureString "{}" -AsPlainText', SECRET),
    ("::add-mask::{}", SECRET),
    ("##vso[task.setvariable variable=a;issecret=true;isOutput=true]{}", SECRET),
    ('"keyName": "key1",\n  "permissions": "FULL",\n  "value": "{}"', FILLER + FILLER + "=="),
    ("docker login -u me --password-stdin h.example <<< {}", SECRET),
    ("see access_token$production${}", f"{FILLER[:16].lower()}${HEX[:32]}"),
    ("see npg_{}", FILLER[:12]),
    ("see 00D000000000123!{}", FILLER + FILLER),
)


def spells_flag(text: str, flag: bytes) -> bool:
    """Whether a command line has the flag, right before its value if nothing separates the two."""
    return f" {flag.decode()}" in text and (flag[-1:] in b" =" or f" {flag.decode()} " not in text)


def test_every_row_of_the_flags_has_texts() -> None:
    """One for each flag of the row."""
    assert len(FLAGS) == len(FLAG_COMMANDS)
    for row, texts in zip(FLAG_COMMANDS, FLAGS):
        assert {
            flag for flag in row.flags for text in texts if spells_flag(text, flag)
        } == row.flags


@each_row(
    ("row", "text"),
    [
        pytest.param(row, text, id=text)
        for row, texts in zip(FLAG_COMMANDS, FLAGS)
        for text in texts
    ],
)
def test_the_password_behind_a_flag_goes_because_of_one_row(
    row: syntax.FlagCommand, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is removed, and would not be without the row."""
    raw = text.format(SECRET).encode()

    assert redact_both_ways(raw) == text.format("[REDACTED]").encode()
    with monkeypatch.context() as without:
        without.setattr(
            syntax, "FLAG_COMMANDS", tuple(each for each in FLAG_COMMANDS if each is not row)
        )
        assert RULES.redact_bytes(raw) == raw


def test_every_phrase_has_a_text() -> None:
    """One for each row."""
    assert len(PHRASE_TEXTS) == len(PHRASES)


@each_row(
    ("row", "text", "secret"),
    [pytest.param(row, *texts, id=texts[0]) for row, texts in zip(PHRASES, PHRASE_TEXTS)],
)
def test_the_secret_behind_a_phrase_goes_because_of_one_row(
    row: syntax.Phrase, text: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is removed, and would not be without the row."""
    raw = text.format(secret).encode() + b"\n"

    assert redact_both_ways(raw) == text.format("[REDACTED]").encode() + b"\n"
    with monkeypatch.context() as without:
        without.setattr(syntax, "PHRASES", tuple(each for each in PHRASES if each is not row))
        assert RULES.redact_bytes(raw) == raw


WEBHOOK_TEXTS = (
    *("hooks.slack.com/services/", "hooks.slack.com/workflows/", "hooks.slack.com/triggers/"),
    *("discord.com/api/webhooks/", "discordapp.com/api/webhooks/"),
    *("canary.discord.com/api/webhooks/", "ptb.discord.com/api/webhooks/"),
    *("outlook.office.com/webhook/", "outlook.office365.com/webhook/"),
    *("acme.webhook.office.com/webhookb2/", "hooks.zapier.com/hooks/catch/"),
    *("api.telegram.org/bot", "api.telegram.org/file/bot"),
    *("open.feishu.cn/open-apis/bot/v2/hook/", "open.larksuite.com/open-apis/bot/v2/hook/"),
    *("hook.eu1.make.com/", "hook.us1.make.com/"),
)


def test_every_webhook_has_a_text() -> None:
    """One for each row."""
    assert len(WEBHOOK_TEXTS) == len(WEBHOOKS)


@each_row(("row", "text"), zip(WEBHOOKS, WEBHOOK_TEXTS))
def test_a_webhook_goes_because_of_one_row(
    row: bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is removed, and would not be without the row."""
    raw = f"POST https://{text}{FILLER}/x now\n".encode()

    assert redact_both_ways(raw) == b"POST https://[REDACTED] now\n"
    with monkeypatch.context() as without:
        without.setattr(syntax, "WEBHOOKS", tuple(each for each in WEBHOOKS if each != row))
        assert RULES.redact_bytes(raw) == raw
