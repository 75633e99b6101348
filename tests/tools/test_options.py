"""The rules of the command line: a value may be anything, a mistake is one sentence."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import RunnerError
from kinds.claude import ClaudeProfile
from kinds.profile import Profile
from places import typed_name
from rev_runner import RevProfile
from runner.console import print_out
from runner.plan import parse_duration
from testing.programs.runner_files import ROOT
from tools.command_line import build_command_line
from tools.examples import USUAL
from tools.options import CommandLine


def small_line() -> CommandLine:
    """Return a command line with one command of each kind."""
    line = CommandLine("prog", "./prog", "1.2", "What it is for.")
    add_option = line.add_subcommand("go", lambda: 0, "go on", hands_on=True)
    add_option("--to", metavar="PLACE", help="where")
    add_option("--how", metavar="MODE", choices=("fast", "slow"), help="how")
    add_option("--each", metavar="X", action="append", default=[], help="more")
    add_option("--flag", action="store_true", help="a flag")
    add_option = line.add_subcommand("put", lambda: 0, "put down")
    add_option("folder", metavar="DIR", help="where")
    line.needs_no_settings("put")
    return line


@given(value=st.text(), others=st.lists(st.text(), max_size=3))
def test_a_value_is_any_text(value: str, others: list[str]) -> None:
    """What follows an option is its value, however it is given and whatever it looks like."""
    line = small_line()
    repeated = [item for each in others for item in ("--each", each)]

    apart = line.parse(["go", "--to", value, *repeated, "--flag"])
    joined = line.parse(["go", f"--to={value}", *(f"--each={each}" for each in others)])

    assert (apart.to, apart.each, apart.flag) == (value, others, True)
    assert (joined.to, joined.each, joined.flag) == (value, others, False)


@given(rest=st.lists(st.text(), max_size=4))
def test_what_follows_two_dashes_is_handed_on(rest: list[str]) -> None:
    """As it is, options of ours and further dashes included."""
    options = small_line().parse(["go", "--to", "--", "--", *rest])

    assert options.to == "--"
    assert options.arguments == rest


def test_only_commands_that_say_so_do_without_settings() -> None:
    """An operand may be called as an option is, or as a command."""
    line = small_line()

    assert line.parse(["go"]).needs_settings
    for folder in ("go", "folder", "to", "./--x"):
        options = line.parse(["put", folder])
        assert (options.folder, options.needs_settings) == (folder, False)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["put", "x", "--", "y"], "nothing may follow -- with put"),
        (["put"], "the following arguments are required: DIR; see ./prog put --help"),
        (["go", "--how", "sideways"], "invalid choice: 'sideways'"),
        (
            ["go", "--fla"],
            "unrecognized argument: --fla; did you mean --flag? see ./prog go --help",
        ),
        (["go", "--too=x"], "unrecognized argument: --too; did you mean --to? see ./prog go"),
        (["go", "--yonder"], "unrecognized argument: --yonder; see ./prog go --help"),
        (["pot", "x"], "there is no subcommand 'pot'; did you mean put? see ./prog --help"),
        (["-v", "hop"], "there is no subcommand 'hop'; see ./prog --help"),
        (["--to", "secret", "go"], "--to stands before go; write it behind"),
        (["go", "--to"], "--to needs a value; see ./prog go --help"),
        ([], "a subcommand is missing: go, put; see ./prog --help"),
        (["-vq"], "a subcommand is missing: go, put; see ./prog --help"),
        (["--verison"], "unrecognized argument: --verison; did you mean --version? see ./prog --h"),
        (["--secret=x"], "unrecognized argument: --secret; see ./prog --help"),
        (["--to", "secret"], "a subcommand is missing: go, put; see ./prog --help"),
        (["-vv", "go", "--to"], "--to needs a value; see ./prog go --help"),
        (["put", "a", "b"], "unrecognized argument: b; see ./prog put --help"),
    ],
)
def test_a_mistake_is_one_sentence(argv: list[str], sentence: str) -> None:
    """It says where to look, and shows no value."""
    with pytest.raises(RunnerError) as told:
        small_line().parse(argv)

    assert sentence in str(told.value)
    assert "\n" not in str(told.value)


def test_help_and_version_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, by commands without examples too."""
    for argv, text in ((["--help"], "What it is for."), (["go", "-h"], "Go on.")):
        with pytest.raises(SystemExit):
            small_line().parse(argv)
        assert text in capsys.readouterr().out
    with pytest.raises(SystemExit):
        small_line().parse(["--version"])
    assert capsys.readouterr().out == "prog 1.2\n"
    print_out("said")
    assert capsys.readouterr().out == "said\n"


@pytest.mark.parametrize("profile", [ClaudeProfile(), RevProfile()], ids=lambda each: each.name)
def test_every_example_can_be_typed(profile: Profile) -> None:
    """Each subcommand's help has its own examples, and the program's has one of the usual ones."""
    line = build_command_line(profile)
    for name, parser in line.parsers.items():
        shown = parser.format_help().partition("\nexamples:\n")[2].splitlines()
        assert shown, name
        for each in shown:
            words = shlex.split(re.sub(r"^eval \"\$\((.*)\)\"", r"\1", each.strip()), comments=True)
            words = words[: words.index("<") if "<" in words else None]
            options = line.parse(words[1 : words.index("|") if "|" in words else None])
            assert words[0] == f"./wrapper/{profile.program}"
            assert options.subcommand == name or (not name and options.subcommand in USUAL)


@given(hours=st.integers(0, 99), minutes=st.integers(0, 999), seconds=st.integers(0, 9_999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int) -> None:
    """Every part may be left out, but not all of them."""
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
    text = "".join(f"{number}{unit}" for number, unit in parts if number)
    total_s = hours * 3_600 + minutes * 60 + seconds

    if total_s:
        assert parse_duration(text, "--max-time") == total_s
        assert parse_duration(f" {text} ", "--max-time") == total_s
    else:
        with pytest.raises(RunnerError, match="write a time such as 90s"):
            parse_duration(text, "--max-time")
    assert parse_duration(None, "--max-time") is None


@pytest.mark.parametrize("text", ["", "5", "1.5h", "-5s", "5s5m", "1h 5m", "0s", "forever", "٣s"])
def test_what_is_no_duration_is_told(text: str) -> None:
    """With what to write instead."""
    with pytest.raises(RunnerError, match="write a time such as 90s, 45m, 2h or 1h30m"):
        parse_duration(text, "--max-time")


def test_the_program_is_called_as_it_is_started() -> None:
    """In a project by the path of its shim."""
    assert typed_name("claude-runner", ROOT) == "./wrapper/claude-runner"
    assert typed_name("claude-runner", ROOT / "tests") == "claude-runner"
