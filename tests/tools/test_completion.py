"""`completion` in the real shells: a person types, presses Tab, and reads what comes."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from kinds.claude import ClaudeProfile
from testing.needs import needs
from testing.programs.runner_files import ROOT
from testing.programs.terminal import Terminal
from tools.command_line import build_command_line
from tools.completion import SHELLS

WITHIN_S = 30.0
RUNNER = (sys.executable, str(ROOT / "claude_runner.py"))
PROMPT = b"ready> "  # in the line that sets it, it stands in two pieces

# How each shell is started without a configuration, and made to complete, with an unset variable an
# error where the shell knows that.
SHELL_STARTS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        (
            'set -u; bind "set enable-bracketed-paste off"; bind "set show-all-if-ambiguous on"; '
            "bind \"set completion-query-items 0\"; PS1='rea''dy> '; . ./completion\n"
        ),
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        (
            "setopt no_unset; unsetopt auto_menu list_ambiguous prompt_sp; "
            "unset zle_bracketed_paste; "
            "autoload -U compinit; compinit -D; PS1='rea''dy> '; . ./completion\n"
        ),
    ),
}


SHELL_NAMES = [pytest.param(shell, marks=needs(shell)) for shell in ("bash", "zsh", "fish")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A current folder with the scripts' subjects in it: a program, a file, a folder."""
    (tmp_path / "wrapper").mkdir()
    for program in (tmp_path / "wrapper" / "claude-runner", tmp_path / "claude-runner"):
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    (tmp_path / "token file.txt").touch()
    (tmp_path / "token folder").mkdir()
    return tmp_path


@functools.cache
def script(shell: str) -> str:
    """Return what the command prints, which is the same each time."""
    done = subprocess.run(
        [*RUNNER, "completion", shell], capture_output=True, text=True, timeout=WITHIN_S, check=True
    )
    assert done.stderr == ""
    return done.stdout


def complete(shell: str, folder: Path, *lines: str) -> list[str]:
    """Type lines in a real shell, press Tab behind each, and return what is shown for each.

    Shape: the line as it was completed, and below it the choices where there were several.
    """
    (folder / "completion").write_text(script(shell))
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "TERM": "dumb"}
    if shell == "fish":
        asked = "; echo done; ".join(f"complete -C {each!r}" for each in lines)
        command = ["fish", "--no-config", "-c", f"source ./completion; {asked}"]
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=WITHIN_S
        )
        assert done.stderr == ""
        return done.stdout.split("\ndone\n")
    argv, setting_up = SHELL_STARTS[shell]
    shown = []
    with Terminal(argv, env=env, cwd=folder, columns=400, lines=60) as terminal:
        terminal.send(setting_up.encode())
        for number, typed in enumerate(lines):
            terminal.expect(PROMPT)
            terminal.send(typed.encode() + b"\t\t")
            # A shell shows what it reads only when it is done with the Tab before.
            terminal.send(f"\x15echo do''ne {number}\n".encode())
            shown.append(terminal.expect(f"\ndone {number}\r".encode()).decode())
    assert not [each for each in shown if "unbound variable" in each or "not set" in each], shown
    return shown


CASES: Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]] = (
    ("claude-runner ins", ("install",), ("info",)),
    ("./wrapper/claude-runner tes", ("test-connection",), ()),
    ("claude-runner ", ("start", "sync", "doctor", "info", "completion"), ()),
    ("claude-runner start --tok", ("--token", "--token-file"), ("--cwd",)),
    ("claude-runner start --mode ", ("auto", "interactive", "print"), ("token",)),
    ("claude-runner start --token-file token", ("file.txt", "folder"), ()),
    ("claude-runner start --cwd token", ("folder",), ("file.txt",)),
    ("claude-runner install token", ("folder",), ("file.txt",)),
    ("claude-runner install --up", ("--upgrade",), ()),
    ("claude-runner completion ", ("bash", "fish", "zsh"), ()),
    ("claude-runner info --js", ("--json",), ()),
)


@pytest.mark.parametrize("shell", SHELL_NAMES)
def test_tab_completes(shell: str, folder: Path) -> None:
    """Commands, options, their words, files where a file is meant and folders where one is."""
    shown = complete(shell, folder, *(typed for typed, _, _ in CASES))

    assert len(shown) == len(CASES)
    for (typed, wanted, unwanted), each in zip(CASES, shown):
        assert not [word for word in wanted if word not in each], (typed, each)
        assert not [word for word in unwanted if word in each], (typed, each)


@pytest.mark.parametrize("shell", SHELL_NAMES[1:])  # bash shows names alone
def test_an_option_is_explained_in_full(shell: str, folder: Path) -> None:
    """As `--help` does it: a text that ends within its brackets helps nobody."""
    commands = ("start", "gateway")
    parsers = build_command_line(ClaudeProfile()).parsers

    shown = complete(shell, folder, *(f"claude-runner {each} -" for each in commands))

    for command, each in zip(commands, shown):
        options = [action for action in parsers[command]._actions if action.option_strings]
        assert not [option.help for option in options if str(option.help) not in each], each


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_option_of_every_command_is_in_the_script(shell: str) -> None:
    """What is added to the command line is completed without another thought."""
    line = build_command_line(ClaudeProfile())
    text = SHELLS[shell](line)

    for name, parser in line.parsers.items():
        assert name in text
        for action in parser._actions:
            for option in action.option_strings:
                written = f"-l {option[2:]} " if shell == "fish" and option[:2] == "--" else option
                assert written in text or (shell == "fish" and f"-s {option[1:]} " in text)


@pytest.mark.parametrize("shell", SHELL_NAMES)
def test_a_help_text_may_hold_anything(shell: str, tmp_path: Path) -> None:
    """Quotes, brackets, colons and dollars of a help text are text in the script too."""
    line = build_command_line(ClaudeProfile())
    add_option = line.add_subcommand("odd", lambda: 0, 'it\'s [odd]: $HOME `id` \\ "x" $(id)')
    help = 'isn\'t [it]: $HOME `touch here` \\ "x" $(touch here)'
    add_option("--odd", metavar="FILE", help=help)
    (tmp_path / "completion").write_text(SHELLS[shell](line))
    start = {
        "bash": ["bash", "--norc", "-c"],
        "zsh": ["zsh", "-f", "-c"],
        "fish": ["fish", "--no-config", "-c"],
    }[shell]
    prepare = "autoload -U compinit; compinit -D;" if shell == "zsh" else ""

    done = subprocess.run(
        [*start, f"{prepare} . ./completion"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "here").exists()


def test_another_shell_is_refused() -> None:
    """With the shells that there are."""
    done = subprocess.run(
        [*RUNNER, "completion", "csh"], capture_output=True, text=True, timeout=WITHIN_S
    )

    assert done.returncode == 1
    assert "invalid choice: 'csh'" in done.stderr
    assert "bash" in done.stderr
