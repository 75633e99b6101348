"""Write docs/reference.md from the program: every subcommand, option and setting. `make reference`.

With ``--check`` it writes nothing, and fails if the page is not what it would write.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from claude_runner import build_command_line  # noqa: E402 - it is found because of the line above
from config import SETTINGS, Setting  # noqa: E402
from kinds.claude import ClaudeProfile  # noqa: E402
from kinds.profile import Profile  # noqa: E402
from rev_runner import RevProfile  # noqa: E402

PAGE = ROOT / "docs" / "reference.md"
PROFILES: Sequence[Profile] = (ClaudeProfile(), RevProfile())

_HEAD = """# Reference

This page is written by `make reference` from the program itself.

An option wins over the environment, the environment over `.env`, and `.env` over the default.
A value such as `<must match gateway>` counts as not set.
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
        parts.append(
            f"### {name}\n\n{_sentence(summaries[name])}\n" if name else "### Every subcommand\n"
        )
        options = [action for action in parser._actions if _is_shown_with(name, action)]
        parts.append(_table(("option", "meaning"), [_option(action) for action in options]))
    parts.append("## Settings\n\nEach is a variable of the environment or a line of `.env`.\n")
    parts.append(_table(_COLUMNS, [_setting(each) for each in SETTINGS]))
    for profile in PROFILES:
        parts.append(f"Of `{profile.program}` alone:\n")
        parts.append(_table(_COLUMNS, [_setting(each) for each in profile.settings]))
    return "\n".join(parts)


def _summaries(parser: argparse.ArgumentParser) -> dict[str, str]:
    choices = next(each for each in parser._actions if isinstance(each.choices, dict))
    return {each.dest: each.help or "" for each in choices._get_subactions()}


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


def main(argv: Sequence[str]) -> int:
    """Write the page, or compare it."""
    text = write()
    if "--check" not in argv:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/reference.md is not what the program says: run `make reference`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
