"""How a run in print mode is read: at the terminal in colour, anywhere else as plain lines."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinds.text_layout import WORDS, Line, write_line
from redact import Rules
from runner.live_text import LiveText
from testing.gateways.operator import WITHIN_S
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import claude_standin as script
from tests.runner.asking import Scene

NOBODY = ("--ask", "never")
PLAIN = "\n● Bash: make\n⎿ row 1\n⎿ row 2\n\nIt is **made**:\n\\● \\●\n\n■ Done"
COLORED = (
    "● \x1b[1mBash\x1b[0m(make)\n\x1b[2m  ⎿  \x1b[0m\x1b[2mrow 1\x1b[0m\n     \x1b[2mrow 2\x1b[0m\n"
    "\n● It is \x1b[1mmade\x1b[0m:\n  ● \\●\n\n\x1b[2m✻ Done"
)


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({"TERM": "xterm"}, COLORED),
        ({"TERM": "xterm", "NO_COLOR": "1"}, PLAIN),
        ({"TERM": "dumb"}, PLAIN),
    ],
)
def test_the_terminal_has_colors_and_nothing_else_has(
    cards: StrictGateway, tmp_path: Path, env: dict[str, str], shown: str
) -> None:
    """The log and the gateway get the plain lines, whatever the terminal is like."""
    made = script.bash("make", is_free=True, result="row 1\nrow 2")
    turns = [[made, script.say("It is **made**:\n● \\●")]]
    scene = Scene(cards, tmp_path, turns, NOBODY, env=env)

    with scene.terminal() as terminal:
        assert terminal.wait(WITHIN_S) == 0

    # Claude Code writes the one to stderr, which may come in between.
    output = terminal.output.decode().replace("\x1b[?25h", "").replace("\r\n", "\n")
    assert shown in output
    assert PLAIN in scene.launch.log.decode()
    text = cards.text(scene.run_id)
    assert PLAIN in text
    assert "\x1b" not in text
    assert cards.markers(scene.run_id, "started")[0]["layout"] == 1


def test_what_is_printed_besides_passes(cards: StrictGateway, tmp_path: Path) -> None:
    """It passes as it is, whatever it reads as."""
    turns = [[script.line("● a warning\n"), script.say("Words.")]]
    scene = Scene(cards, tmp_path, turns, NOBODY)

    with scene.running() as runner:
        assert runner.wait(WITHIN_S) == 0

    assert "\n● a warning\n\nWords.\n\n■ Done" in cards.text(scene.run_id)


# --- words that are shown while they are written ----------------------------------------------


@pytest.fixture
def live_gateway() -> Iterator[StrictGateway]:
    """A gateway that shows words while they are written."""
    with StrictGateway(rate_limit=None, extensions=("answers", "partial", "progress")) as gateway:
        yield gateway


def test_words_are_at_the_gateway_while_they_are_written(
    live_gateway: StrictGateway, tmp_path: Path
) -> None:
    """They are redacted as one text, shown once, and whole in claude.jsonl; a cut is told."""
    secret = secrets.token_hex(16)
    begun = f"The **value** is {secret} and"
    turns = [
        [
            script.write(f"{begun} no more.", "go"),
            script.write(f"half an ans {secret[:-2]}", "again", whole="Begun anew."),
        ]
    ]
    scene = Scene(live_gateway, tmp_path, turns, NOBODY, env={"SCENE_API_KEY": secret})

    with scene.terminal() as terminal:
        scene.launch.expect(r"\n\nThe \*\*value\*\* is \[REDACTED\] and no")
        terminal.expect(f"● The \x1b[1mvalue\x1b[0m is {secret} and no".encode(), WITHIN_S)
        assert "■" not in live_gateway.text(scene.run_id)
        scene.standin.open("go")
        scene.launch.expect(r"\n\nhalf an")
        scene.standin.open("again")
        assert terminal.wait(WITHIN_S) == 0

    assert (
        live_gateway.text(scene.run_id)
        .partition("\n\n")[2]
        .startswith(
            "The **value** is [REDACTED] and no more.\n\nhalf an ans [REDACTED]\n\n"
            "▲ the answer above was broken off\n\nBegun anew.\n\n■ Done"
        )
    )
    *_, progress = live_gateway.markers(scene.run_id, "progress")
    assert (progress["model"], progress["numTurns"]) == ("stand-in", 2)
    assert progress["totalCostUsd"] == 0.01
    (kept,) = [
        each.data for each in live_gateway.artifacts(scene.run_id) if each.name == "claude.jsonl"
    ]
    messages = [json.loads(line) for line in kept.splitlines()]
    assert "stream_event" not in {each["type"] for each in messages}
    assert secret not in kept.decode() + live_gateway.text(scene.run_id)
    assert "[REDACTED] and no more." in kept.decode()


def test_a_gateway_that_does_not_ask_gets_whole_messages(
    cards: StrictGateway, tmp_path: Path
) -> None:
    """Requests are scarce there, so Claude Code is not told to print pieces."""
    scene = Scene(cards, tmp_path, [[script.write("Words.", "go")]], NOBODY)
    scene.standin.open("go")

    with scene.running() as runner:
        assert runner.wait(WITHIN_S) == 0

    assert "--include-partial-messages" not in scene.standin.all("started")[0]["argv"]
    assert "\n\nWords.\n\n■ Done" in cards.text(scene.run_id)
    assert cards.markers(scene.run_id, "progress") == []


PIECES = st.sampled_from(
    ["token", "password", "=", ": ", '"', " ", "\n", "sk" + "-", "ey" + "J", "://", "u:", "@", "\\",
     "-----BEGIN ", "PRIV" + "ATE KEY-----", "aB3dE5gH7jK9mN1pQ3sT5vW7yZ", "0123456789abcdef" * 2,
     "ab", "abab", "●", "é", "Bearer ", "key"]
)  # fmt: skip


@given(
    st.lists(PIECES, max_size=20).map("".join), st.text("ab", min_size=8, max_size=14), st.data()
)
def test_no_piece_shows_what_the_whole_would_hide(
    text: str, secret: str, data: st.DataObject
) -> None:
    """However the words come, what is shown of them is what redacting the whole text shows."""
    rules = Rules([secret.encode(), b"abab-abab"])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    live = LiveText(rules)

    shown = ""
    for a, b in zip([0, *cuts], [*cuts, len(text)]):
        shown += live.feed(text[a:b])[0]
        if data.draw(st.booleans()):
            # Nothing is let go because the words stand still.
            shown += live.feed("")[0]
    shown += live.end()[0]

    lines = rules.redact(text).split("\n")
    assert shown == "".join(f"{write_line(Line(WORDS, line))}\n" for line in lines)


def test_words_that_are_cut_off_do_not_show_the_beginning_of_a_secret() -> None:
    """They may come once more, and then the whole is hidden; a secret of words is one too."""
    generated = secrets.token_hex(16)
    for secret in (generated, "correct horse battery staple", "gh" + f"p_{generated[:16]}Ab3d"):
        rules = Rules([generated.encode(), b"correct horse battery staple"])
        for size in range(12, len(secret)):
            live = LiveText(rules)
            shown = live.feed("It is ")[0] + live.feed(secret[:size])[0]
            shown += live.end(is_cut=True)[0]
            assert shown == "It is [REDACTED]\n", (size, secret)
    live = LiveText(Rules([]))
    assert live.feed("half an ans")[0] + live.end(is_cut=True)[0] == "half an ans\n"
