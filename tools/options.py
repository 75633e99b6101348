"""The rules of the command line: options that take any value, errors that are one sentence."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Callable, Final, NoReturn

from config import RunnerError
from runner.console import print_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Before every value, so that argparse takes none for an option, nor drops one that is "--".
_VALUE_MARK: Final = "="


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence and exit code 1."""

    def error(self, message: str) -> NoReturn:
        raise RunnerError(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        del file  # help and version go to stdout, and errors do not come here
        print_out(message.rstrip("\n"))


class CommandLine:
    """A program's subcommands and their options.

    The item after an option that takes a value is its value, whatever it begins with; what follows
    `--` is handed on as it is, by the subcommands that take it. `typed` is how a
    user calls the program.
    """

    def __init__(
        self, program: str, typed: str, version: str, description: str, examples: str
    ) -> None:
        self.program = program
        self._typed = typed
        self._examples = examples
        self._with_value: set[str] = set()
        self._handing_on: set[str] = set()
        self._without_settings: set[str] = set()
        self._without_packages: set[str] = set()
        self._common = _Parser(add_help=False)
        _add_verbosity(self._common)
        self._parser = _Parser(
            prog=typed,
            parents=[self._common],
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            description=description,
            epilog=examples,
        )
        self._parser.add_argument("--version", action="version", version=f"{program} {version}")
        self._subcommands = self._parser.add_subparsers(
            dest="subcommand", metavar="COMMAND", required=True
        )

    @property
    def parsers(self) -> Mapping[str, argparse.ArgumentParser]:
        """The parser of each subcommand, by its name; the program's own is under an empty text."""
        return {"": self._parser, **self._subcommands.choices}

    def add_subcommand(
        self, name: str, run: Callable[..., int], summary: str, *, hands_on: bool = False
    ) -> Callable[..., None]:
        """Add a subcommand. Returns what adds an option or operand, like `add_argument`.

        An option takes a value if it has a `metavar`. `run` is found in what `parse` returns.
        """
        parser = self._subcommands.add_parser(
            name,
            parents=[self._common],
            allow_abbrev=False,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=self._examples,
        )
        parser.set_defaults(run=run)
        if hands_on:
            self._handing_on.add(name)

        def add_option(*names: str, **kwargs: Any) -> None:
            if "metavar" in kwargs and names[0].startswith("-"):
                self._with_value.update(names)
                kwargs["type"] = _unmarked
            parser.add_argument(*names, **kwargs)

        return add_option

    def needs_no_settings(self, *names: str) -> None:
        """Let subcommands work with wrong settings; `parse` sets `needs_settings` to say so."""
        self._without_settings.update(names)

    def needs_no_packages(self, *names: str) -> None:
        """Let subcommands work with Python alone; `parse` sets `needs_no_packages` to say so."""
        self._without_packages.update(names)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse a command line. Raises RunnerError, and SystemExit after --help and --version."""
        ours: list[str] = []
        items = iter(argv)
        for item in items:
            if item == "--":
                break
            name, has_value, value = item.partition("=")
            if name in self._with_value:
                given = value if has_value else next(items, None)
                if given is None:
                    raise RunnerError(f"{name} needs a value; see {self._typed} --help")
                item = f"{name}={_VALUE_MARK}{given}"
            ours.append(item)
        options, unknown = self._parser.parse_known_args(ours)
        if unknown:
            # Without its value, which may be a token that the subcommand does not take.
            name = unknown[0].partition("=")[0]
            raise RunnerError(
                f"unrecognized argument: {name}; see {self._typed} {options.subcommand} --help"
            )
        options.arguments = list(items)
        options.needs_settings = options.subcommand not in self._without_settings
        options.needs_no_packages = options.subcommand in self._without_packages
        if options.arguments and options.subcommand not in self._handing_on:
            raise RunnerError(f"nothing may follow -- with {options.subcommand}")
        return options


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
