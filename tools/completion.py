"""The command line -> a script that completes it in bash, zsh or fish.

Pure. The scripts are made from the parsers, so that an option that is added is completed too. They
start nothing: what they know is written into them. An option's `metavar` says what its value is:
`DIR` is a folder, `FILE` and `PATH` are files, anything else cannot be guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from tools.options import CommandLine


@dataclass(frozen=True)
class _Option:
    """One option or operand. `kind` is that of its value: files, folders, words, any; or none."""

    names: tuple[str, ...]
    kind: str
    words: tuple[str, ...]
    help: str

    @property
    def is_operand(self) -> bool:
        return not self.names


@dataclass(frozen=True)
class _Subcommand:
    name: str
    help: str
    options: tuple[_Option, ...]

    def of_kind(self, kind: str) -> list[str]:
        """Return the names of the options whose value is of this kind."""
        return [name for each in self.options if each.kind == kind for name in each.names]


@dataclass(frozen=True)
class _Program:
    name: str
    options: tuple[_Option, ...]
    subcommands: tuple[_Subcommand, ...]

    @property
    def function(self) -> str:
        return "_" + re.sub(r"\W", "_", self.name)


def _complete_bash(line: CommandLine) -> str:
    """Return the script for bash 3.2 and newer."""
    program = _read(line)
    cases = "".join(_bash_case(program.function, subcommand) for subcommand in program.subcommands)
    everywhere = " ".join(name for option in program.options for name in option.names)
    subcommands = " ".join(subcommand.name for subcommand in program.subcommands)
    return _BASH.format(
        program=program.name,
        function=program.function,
        subcommands=subcommands,
        everywhere=everywhere,
        cases=cases,
    )


# With `default`, an empty answer makes bash offer files in its own way, blanks, ~ and quotes
# included. bash 3.2 has no compopt, so it offers files too often there.
_BASH: Final = """\
# bash completion for {program}; in ~/.bashrc: eval "$({program} completion bash)"
{function}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command= i
    COMPREPLY=()
    if [ "$cur" = "=" ]; then
        cur=
    elif [ "$prev" = "=" ] && [ "$COMP_CWORD" -ge 3 ]; then
        prev=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            --) return ;;
            -*) ;;
            *) [ -n "$command" ] || command=${{COMP_WORDS[i]}} ;;
        esac
    done
    case $command in
        '') {function}_words "{subcommands} {everywhere}" ;;
{cases}        *) {function}_words ;;
    esac
}}
{function}_words() {{
    compopt +o default 2>/dev/null
    COMPREPLY=($(compgen -W "${{1-}}" -- "$cur"))
}}
{function}_folders() {{
    compopt +o default -o dirnames 2>/dev/null
}}
complete -o default -F {function} {program}
"""


def _bash_case(function: str, subcommand: _Subcommand) -> str:
    lines = [f"        {subcommand.name})", "            case $prev in"]

    def answer(names: list[str], call: str) -> None:
        if names:
            lines.append(f"                {' | '.join(names)}) {call} ;;")

    answer(subcommand.of_kind("files"), ":")
    answer(subcommand.of_kind("folders"), f"{function}_folders")
    answer(subcommand.of_kind("any"), f"{function}_words")
    for option in subcommand.options:
        if option.kind == "words":
            answer(list(option.names), f'{function}_words "{" ".join(option.words)}"')
    names = " ".join(name for option in subcommand.options for name in option.names)
    operand = next((option for option in subcommand.options if option.is_operand), None)
    words = f"{names} {' '.join(operand.words)}" if operand is not None else names
    otherwise = f'{function}_words "{words.strip()}"'
    if operand is not None and operand.kind == "folders":
        otherwise = f'[[ $cur == -* ]] && {function}_words "{names}" || {function}_folders'
    lines += [f"                *) {otherwise} ;;", "            esac", "            ;;", ""]
    return "\n".join(lines)


def _complete_zsh(line: CommandLine) -> str:
    """Return the script for zsh, to be evaluated after compinit or put into `fpath`."""
    program = _read(line)
    described = " ".join(
        _zsh_quoted(f"{subcommand.name}:{subcommand.help}") for subcommand in program.subcommands
    )
    cases = "".join(
        f"                {subcommand.name}) _arguments -s {_zsh_arguments(subcommand.options)} "
        "&& ret=0 ;;\n"
        for subcommand in program.subcommands
    )
    return _ZSH.format(
        program=program.name,
        function=f"_{program.name}",
        options=_zsh_arguments(program.options),
        described=described,
        cases=cases,
    )


_ZSH: Final = """\
#compdef {program}
# zsh completion for {program}; in ~/.zshrc, after compinit: eval "$({program} completion zsh)"
{function}() {{
    local curcontext="$curcontext" state line ret=1
    local -a commands
    typeset -A opt_args
    commands=({described})
    _arguments -C -s {options} '1: :->command' '*:: :->rest' && ret=0
    case $state in
        command) _describe -t commands command commands && ret=0 ;;
        rest)
            case $words[1] in
{cases}            esac
            ;;
    esac
    return ret
}}
if [[ "${{funcstack[1]-}}" == "{function}" ]]; then
    {function} "$@"
else
    compdef {function} {program}
fi
"""

_ZSH_ACTIONS: Final = {"files": "_files", "folders": "_files -/", "any": " "}


def _zsh_arguments(options: tuple[_Option, ...]) -> str:
    specs = []
    operands = 0
    for option in options:
        action = f"({' '.join(option.words)})" if option.kind == "words" else ""
        action = action or _ZSH_ACTIONS.get(option.kind, "")
        if option.is_operand:
            operands += 1
            message = option.help.replace(":", "\\:")
            specs.append(_zsh_quoted(f"{operands}:{message}:{action}"))
            continue
        explained = option.help.replace("[", "(").replace("]", ")")
        for name in option.names:
            joined = "=" if name.startswith("--") and action else ""
            value = f":value:{action}" if action else ""
            specs.append(_zsh_quoted(f"*{name}{joined}[{explained}]{value}"))
    return " ".join(specs)


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _complete_fish(line: CommandLine) -> str:
    """Return the script for fish 3 and newer."""
    program = _read(line)
    complete = f"complete -c {program.name}"
    hint = f"in ~/.config/fish/config.fish: {program.name} completion fish | source"
    lines = [f"# fish completion for {program.name}; {hint}", f"{complete} -f"]
    first = f"{complete} -n __fish_use_subcommand"
    lines += [first + _fish_option(option) for option in program.options]
    lines += [
        f"{first} -a {each.name} -d {_fish_quoted(each.help)}" for each in program.subcommands
    ]
    for subcommand in program.subcommands:
        then = f"{complete} -n '__fish_seen_subcommand_from {subcommand.name}'"
        lines += [then + _fish_option(option) for option in subcommand.options]
    return "\n".join([*lines, ""])


_FISH_VALUES: Final = {
    "files": " -r -F",
    "folders": " -x -a '(__fish_complete_directories)'",
    "any": " -x",
    "none": "",
}


def _fish_option(option: _Option) -> str:
    if option.kind == "words":
        value = f" -x -a '{' '.join(option.words)}'"
    else:
        value = _FISH_VALUES[option.kind]
    if option.is_operand:
        return f"{value.replace(' -x', '')} -d {_fish_quoted(option.help)}"
    names = "".join(
        f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in option.names
    )
    return f"{names}{value} -d {_fish_quoted(option.help)}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# --- what there is to complete --------------------------------------------------------------------


def _read(line: CommandLine) -> _Program:
    parsers = dict(line.parsers)
    whole = parsers.pop("")
    subcommands = [
        _Subcommand(name, _help_text(parser.description), _options(parser))
        for name, parser in parsers.items()
    ]
    return _Program(line.program, _options(whole), tuple(subcommands))


def _options(parser: argparse.ArgumentParser) -> tuple[_Option, ...]:
    actions = (action for action in parser._actions if action.dest != "subcommand")
    return tuple(
        _Option(tuple(action.option_strings), *_value(action), _help_text(action.help))
        for action in actions
    )


_KINDS: Final[Mapping[str, str]] = {"DIR": "folders", "FILE": "files", "PATH": "files"}


def _value(action: argparse.Action) -> tuple[str, tuple[str, ...]]:
    if action.choices is not None:
        return "words", tuple(str(choice) for choice in action.choices)
    if not isinstance(action.metavar, str):
        return "none", ()
    return _KINDS.get(action.metavar, "any"), ()


def _help_text(text: str | None) -> str:
    """Return help as it reads in a list: without a full stop, and what %-signs stand for."""
    return (text or "").rstrip(".").replace("%%", "%")


SHELLS: Final = {"bash": _complete_bash, "fish": _complete_fish, "zsh": _complete_zsh}
