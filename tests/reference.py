"""Write the pages that are made from the program: options and settings, decisions, rooms.

``python -m tests.reference``, or `make reference`.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Mapping, Sequence

from config import SETTINGS, Setting
from gateway.settings import OWN as GATEWAY_SETTINGS
from kinds.claude import ClaudeProfile
from kinds.profile import Profile
from places import PROGRAM
from rev_runner import RevProfile
from tests.test_layout import GATEWAY_MAY_IMPORT, MAY_IMPORT
from tools.command_line import build_command_line

PAGE = PROGRAM / "docs" / "reference.md"
DECISIONS = PROGRAM / "docs" / "decisions" / "index.md"
ROOMS = PROGRAM / "docs" / "rooms.md"
PROFILES: Sequence[Profile] = (ClaudeProfile(), RevProfile())

_HEAD = """# Reference

This page is written by `make reference` from the program itself.

An option wins over the environment, the environment over `.env`, and `.env` over the default.
A value such as `<must match gateway>` counts as not set.
"""

_DECISIONS_HEAD = """# Decisions

Why things are as they are. Each page has the context, the decision, what was rejected, and how we would notice that it was wrong.
`make reference` writes this list.
"""  # noqa: E501 - a paragraph of a page is one line

_ROOMS_HEAD = """# The rooms of the code

A room is a module at the top, or a package. Imports go one way: a room imports itself, and those in its row's last column.
`MAY_IMPORT` and `GATEWAY_MAY_IMPORT` in `tests/test_layout.py` are the rule; `make reference` writes this page from them and from the first line of each room.
"""  # noqa: E501 - a paragraph of a page is one line
_ROOM_COLUMNS = ("room", "what it is for", "may import")

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
    parts.append("Of the gateway alone:\n")
    parts.append(_table(_COLUMNS, [_setting(each) for each in GATEWAY_SETTINGS]))
    return "\n".join(parts)


def write_decisions() -> str:
    """Return the page that lists the decisions."""
    rows = []
    for page in sorted(DECISIONS.parent.glob("[0-9]*.md")):
        title, _, status = page.read_text("utf-8").splitlines()[:3]
        number, name = title[2:].split(". ", 1)
        rows.append((number, f"[{name}]({page.name})", status[len("Status: ") :]))
    return f"{_DECISIONS_HEAD}\n{_table(('number', 'decision', 'status'), rows)}"


def write_rooms() -> str:
    """Return the map of the rooms: what each is for, and what it may import."""
    runner = _rooms(MAY_IMPORT, "")
    return "\n".join(
        [
            _ROOMS_HEAD,
            "## The runner\n",
            _table(_ROOM_COLUMNS, runner),
            "## The gateway\n",
            _table(_ROOM_COLUMNS, _rooms(GATEWAY_MAY_IMPORT, "gateway/")),
        ]
    )


def _rooms(rule: Mapping[str, str], folder: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for rooms, may_import in rule.items():
        for room in (each for each in rooms.split() if each != "__init__"):
            module = PROGRAM / f"{folder}{room}.py"
            is_package = not module.exists()
            source = PROGRAM / folder / room / "__init__.py" if is_package else module
            first = (ast.get_docstring(ast.parse(source.read_text("utf-8"))) or "").splitlines()[0]
            others = ", ".join(f"`{name}`" for name in may_import.split())
            name = f"`{folder}{room}{'/' if is_package else '.py'}`"
            rows.append((name, first.replace("|", "\\|"), others or "none"))
    return rows


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
    DECISIONS.write_text(write_decisions(), encoding="utf-8")
    ROOMS.write_text(write_rooms(), encoding="utf-8")
