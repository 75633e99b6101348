"""Write docs/reference.md from the program: ``python -m tests.reference``, or `make reference`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from claude_runner import build_command_line
from config import SETTINGS, Setting
from kinds.claude import ClaudeProfile
from kinds.profile import Profile
from places import PROGRAM
from rev_runner import RevProfile

PAGE = PROGRAM / "docs" / "reference.md"
PROFILES: Sequence[Profile] = (ClaudeProfile(), RevProfile())

_HEAD = """# Reference

This page is written by `make reference` from the program itself.

An option wins over the environment, the environment over `.env`, and `.env` over the default.
A value such as `<must match gateway>` counts as not set.
"""

_EVERYWHERE = """### Every subcommand

Without a subcommand, `--version` prints the version.
"""

_COLUMNS = ("variable", "default", "meaning")
# What a reader may type or set, in a sentence that argparse shows as plain text.
_CODE = re.compile(
    r"(?<![\w`/-])(--?[a-z][a-z-]*|[A-Z]+(?:_[A-Z]+)+|[~.]?(?:/[\w.-]+)+|\.env|SHA256:…"
    r"|\w+\[[^\]]+\]\{[\d,]+\})(?![\w`])"
)


def write() -> str:
    """Return the whole page."""
    parsers = build_command_line(PROFILES[0]).parsers
    summaries = _summaries(parsers[""])
    parts = [_HEAD, "## Subcommands\n"]
    for name, parser in parsers.items():
        parts.append(f"### {name}\n\n{_sentence(summaries[name])}\n" if name else _EVERYWHERE)
        options = [action for action in parser._actions if _is_shown_with(name, action)]
        parts.append(_table(("option", "meaning"), [_option(action) for action in options]))
    parts.append("## Settings\n\nEach is a variable of the environment or a line of `.env`.\n")
    parts.append(_table(_COLUMNS, [_setting(each) for each in SETTINGS]))
    for profile in PROFILES:
        parts.append(f"Of `{profile.program}` alone:\n")
        parts.append(_table(_COLUMNS, [_setting(each) for each in profile.settings]))
    return "\n".join(parts)


def _summaries(parser: argparse.ArgumentParser) -> dict[str, str]:
    subcommands = next(each for each in parser._actions if isinstance(each.choices, dict))
    listed: list[argparse.Action] = getattr(subcommands, "_choices_actions")  # noqa: B009 - private
    return {each.dest: each.help or "" for each in listed}


def _is_shown_with(subcommand: str, action: argparse.Action) -> bool:
    """Whether an option is in the table of this subcommand, whose name is empty for all of them."""
    is_everywhere = not {"-h", "-v", "-q"}.isdisjoint(action.option_strings)
    return not isinstance(action.choices, dict) and is_everywhere == (not subcommand)


def _option(action: argparse.Action) -> tuple[str, str]:
    value = f" {action.metavar}" if action.metavar and action.option_strings else ""
    names = action.option_strings or [str(action.metavar or action.dest)]
    choices = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
    meaning = (action.help or "").replace("%%", "%")
    return ", ".join(f"`{name}{value}`" for name in names), _cell(meaning + choices)


def _setting(setting: Setting) -> tuple[str, str, str]:
    default = f"`{setting.default}`" if setting.default else "none"
    return f"`{setting.variable}`", default, _cell(setting.meaning)


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = (columns, ("---",) * len(columns), *rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return _CODE.sub(r"`\1`", text).replace("|", "\\|")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{_cell(text[1:])}."


if __name__ == "__main__":
    PAGE.write_text(write(), encoding="utf-8")
