"""How a run in print mode is read: at the terminal in colour, anywhere else as plain lines."""

from __future__ import annotations

from pathlib import Path

import pytest

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
