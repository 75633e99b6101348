"""The rules of the command line: options that take any value, errors that are one sentence."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple, NoReturn

from config import RunnerError
from runner.console import print_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kinds.profile import Profile

# Before every value, so that argparse takes none for an option, nor drops one that is "--".
_VALUE_MARK: Final = "="
_HELP: Final = frozenset({"-h", "--help"})
# How much two names are alike, of 1, for one to be meant by the other: tokn and token are by 0.89.
_CLOSE: Final = 0.65
# The column of the comments behind examples; a longer one has its comment behind it.
_COMMENTS_AT: Final = 64


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal. argparse asks `shutil` for that with each option, which imports more
    than all that a command line needs.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return 80


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence and exit code 1, and whose help ends with examples."""

    examples: Callable[[], str] | None = None

    def format_help(self) -> str:
        if self.examples is not None:
            self.epilog = self.examples()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise RunnerError(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        del file  # help and version go to stdout, and errors do not come here
        print_out(message.rstrip("\n"))


class _Plan(NamedTuple):
    run: Callable[..., int]
    summary: str
    options: list[tuple[tuple[str, ...], dict[str, Any]]]


class CommandLine:
    """A program's subcommands and their options.

    The item after an option that takes a value is its value, whatever it begins with; what follows
    `--` is handed on as it is, by the subcommands that take it. `typed` is how a
    user calls the program. `words` stand for names in examples.
    """

    def __init__(
        self, program: str, typed: str, version: str, description: str, **words: str
    ) -> None:
        self.program = program
        self._typed = typed
        self._words = words
        self._with_value: set[str] = set()
        self._handing_on: set[str] = set()
        self._without_settings: set[str] = set()
        self._without_packages: set[str] = set()
        # What each subcommand is made of. Their parsers take long to make, and a start needs one.
        self._planned: dict[str, _Plan] = {}
        self._common = _Parser(add_help=False, formatter_class=_Formatter)
        _add_verbosity(self._common)
        self._parser = _Parser(
            prog=typed,
            parents=[self._common],
            allow_abbrev=False,
            formatter_class=_Formatter,
            description=description,
        )
        self._parser.examples = lambda: self._examples("")
        self._parser.add_argument("--version", action="version", version=f"{program} {version}")
        self._subcommands = self._parser.add_subparsers(
            dest="subcommand", metavar="COMMAND", required=True
        )

    @property
    def parsers(self) -> Mapping[str, argparse.ArgumentParser]:
        """The parser of each subcommand, by its name; the program's own is under an empty text."""
        return {"": self._parser, **{name: self._build(name) for name in self._planned}}

    def add_subcommand(
        self, name: str, run: Callable[..., int], summary: str, *, hands_on: bool = False
    ) -> Callable[..., None]:
        """Add a subcommand. Returns what adds an option or operand, like `add_argument`.

        An option takes a value if it has a `metavar`. `run` is found in what `parse` returns.
        """
        plan = self._planned[name] = _Plan(run, summary, [])
        if hands_on:
            self._handing_on.add(name)

        def add_option(*names: str, **kwargs: Any) -> None:
            if "metavar" in kwargs and names[0].startswith("-"):
                self._with_value.update(names)
                kwargs["type"] = _unmarked
            plan.options.append((names, kwargs))

        return add_option

    def _build(self, name: str) -> argparse.ArgumentParser:
        """Return the parser of a subcommand, made now if it is not there."""
        built: argparse.ArgumentParser | None = self._subcommands.choices.get(name)
        if built is not None:
            return built
        plan = self._planned[name]
        parser = self._subcommands.add_parser(
            name,
            parents=[self._common],
            allow_abbrev=False,
            help=plan.summary,
            description=plan.summary[0].upper() + plan.summary[1:] + ".",
            formatter_class=_Formatter,
        )
        parser.examples = lambda: self._examples(name)
        parser.set_defaults(run=plan.run)
        for names, kwargs in plan.options:
            parser.add_argument(*names, **kwargs)
        return parser

    def needs_no_settings(self, *names: str) -> None:
        """Let subcommands work with wrong settings; `parse` sets `needs_settings` to say so."""
        self._without_settings.update(names)

    def needs_no_packages(self, *names: str) -> None:
        """Let subcommands work with Python alone; `parse` sets `needs_no_packages` to say so."""
        self._without_packages.update(names)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse a command line. Raises RunnerError, and SystemExit after --help and --version."""
        subcommand = self._require_subcommand(argv)
        for name in [subcommand] if subcommand else self._planned if _HELP & set(argv) else []:
            self._build(name)
        ours: list[str] = []
        items = iter(argv)
        for item in items:
            if item == "--":
                break
            name, has_value, value = item.partition("=")
            if name in self._with_value:
                given = value if has_value else next(items, None)
                if given is None:
                    raise RunnerError(
                        f"{name} needs a value; see {self._typed} {subcommand} --help"
                    )
                item = f"{name}={_VALUE_MARK}{given}"
            ours.append(item)
        options, unknown = self._parser.parse_known_args(_words_first(ours, subcommand))
        if unknown:
            # Without its value, which may be a token that the subcommand does not take.
            name = next((each for each in unknown if each[:1] == "-"), unknown[0]).partition("=")[0]
            known = self._build(options.subcommand)._option_string_actions
            if name in known:
                raise RunnerError(f"{name} stands before {options.subcommand}; write it behind")
            raise RunnerError(
                f"unrecognized argument: {name}; {_did_you_mean(name, known)}see {self._typed} "
                f"{options.subcommand} --help"
            )
        options.arguments = list(items)
        options.needs_settings = options.subcommand not in self._without_settings
        options.needs_no_packages = options.subcommand in self._without_packages
        if options.arguments and options.subcommand not in self._handing_on:
            raise RunnerError(f"nothing may follow -- with {options.subcommand}")
        return options

    def _require_subcommand(self, argv: Sequence[str]) -> str:
        """Return the subcommand, which is empty with --help. No option before it has a value.

        Raises RunnerError if there is none.
        """
        options = self._parser._option_string_actions
        others = [each for each in argv if each not in options]
        names = self._planned
        first = others[0].partition("=")[0] if others else ""
        if first[:1] not in ("", "-") and first not in names:
            raise RunnerError(
                f"there is no subcommand {first!r}; {_did_you_mean(first, names)}see {self._typed} "
                "--help"
            )
        named = next((each for each in others if each in names), "")  # one behind may be an operand
        if named or {*_HELP, "--version"} & set(argv):
            return named
        if (
            first[:2] == "--"
            and first[2:]
            and not any(first in each._option_string_actions for each in self.parsers.values())
        ):
            raise RunnerError(
                f"unrecognized argument: {first}; {_did_you_mean(first, options)}see {self._typed} "
                "--help"
            )
        raise RunnerError(f"a subcommand is missing: {', '.join(names)}; see {self._typed} --help")

    def _examples(self, subcommand: str) -> str:
        """Return the lines below the help of a subcommand; an empty one is the whole program.

        Those with an option that this program does not have are left out.
        """
        from tools.examples import EXAMPLES, USUAL

        rows: list[tuple[str, str]] = []
        for name, examples in EXAMPLES.items():
            is_shown = name == subcommand if subcommand else name in USUAL
            if name not in self._planned or not is_shown:
                continue
            known = self._build(name)._option_string_actions
            fitting = [
                (f"{{typed}} {name} {text}".strip() if "{typed}" not in text else text, comment)
                for text, comment in examples
                if set(re.findall(r"(?<!\S)--[a-z-]+", text.partition(" -- ")[0])) <= known.keys()
            ]
            rows += fitting if subcommand else fitting[:1]
        if not rows:
            return ""
        words = {"typed": self._typed, **self._words}
        lines = [(text.format(**words), comment.format(**words)) for text, comment in rows]
        width = min(_COMMENTS_AT, max(len(text) for text, _ in lines))
        return "examples:\n" + "\n".join(
            f"  {text.ljust(width)}  # {comment}" if comment else f"  {text}"
            for text, comment in lines
        )


def handed_on(options: argparse.Namespace, profile: Profile, but: Sequence[str] = ()) -> list[str]:
    """Return the options of the profile for `start`, as they were given to another subcommand."""
    found: list[str] = []

    def look(*names: str, **how: Any) -> None:
        value = getattr(options, how.get("dest") or names[0].lstrip("-").replace("-", "_"))
        if names[0] in but or value in (None, False):
            return
        found.append(names[0] if value is True else f"{names[0]}={value}")

    profile.add_start_options(look)
    return found


def _words_first(items: Sequence[str], subcommand: str) -> list[str]:
    """Return a command line with a subcommand's words before its options, whose values are in them.

    argparse takes words that may be left out at the first place where they may stand, or never.
    """
    begin = items.index(subcommand) + 1 if subcommand in items else len(items)
    return [*items[:begin], *sorted(items[begin:], key=lambda each: each[:1] == "-")]


def _did_you_mean(given: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    # Without the dashes, which all options have in common.
    names = {each.lstrip("-"): each for each in known}
    close = get_close_matches(given.lstrip("-"), names, 1, _CLOSE)
    return f"did you mean {names[close[0]]}? " if close else ""


def _add_verbosity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=argparse.SUPPRESS,
        help="print more; -vv prints most",
    )
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print only warnings and errors",
    )


def _unmarked(value: str) -> str:
    return value[len(_VALUE_MARK) :]
