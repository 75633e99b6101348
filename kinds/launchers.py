"""Which program a command line starts in the end, behind launchers such as env, nice or npx.

Not the place of every launcher that there is: a run whose program is not recognised says so when
it matters (see `Invocation.hint`). Pure.

Sources: the manuals of GNU coreutils, util-linux, macOS, sudo(8), and `--help` of the others.
"""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

# More launchers than this in front of each other are no use to anybody.
_MAX_LAUNCHERS: Final = 16


class _Launcher(NamedTuple):
    """How a launcher finds the command among its arguments.

    `valued` are its options whose value may be the next word. `verbs`: the command stands behind
    one of these words. `operands` are words of its own before the command; None is any number, up
    to `--`. `split` are options whose value is itself a piece of the command line.
    """

    valued: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    operands: int | None = 0
    assigns: bool = False
    split: frozenset[str] = frozenset()


def _launcher(
    valued: str = "", verbs: str = "", operands: int | None = 0, *, assigns: bool = False
) -> _Launcher:
    return _Launcher(frozenset(valued.split()), frozenset(verbs.split()), operands, assigns)


_ENV: Final = _Launcher(
    frozenset(["-u", "--unset", "-C", "--chdir", "-a", "--argv0", "-P", "-L", "-U"]),
    assigns=True,
    split=frozenset({"-S", "--split-string"}),
)
_NODE_VALUES: Final = (
    "-r --require --import --loader --experimental-loader -C --conditions --env-file --title "
    "--env-file-if-exists --icu-data-dir --openssl-config --input-type --stack-trace-limit"
)
_NPM_VALUES: Final = "-p --package -w --workspace --registry --cache --prefix --userconfig"
_SUDO_VALUES: Final = (
    "-u --user -g --group -h --host -p --prompt -C --close-from -D --chdir -R --chroot "
    "-T --command-timeout -U --other-user -r --role -t --type"
)
_RUNS_BEHIND_DASHES: Final = _launcher(verbs="run exec", operands=None)
_EXECS: Final = _launcher(verbs="exec")
_LAUNCHERS: Final = {
    "env": _ENV,
    "genv": _ENV,
    # Of the operating system.
    "arch": _launcher("-arch -d -e"),
    "caffeinate": _launcher("-t -w"),
    "chrt": _launcher("-T -P -D", operands=1),
    "doas": _launcher("-u -C"),
    "ionice": _launcher("-c --class -n --classdata"),
    "nice": _launcher("-n --adjustment"),
    "nohup": _launcher(),
    "prlimit": _launcher(),
    "setsid": _launcher(),
    "stdbuf": _launcher("-i --input -o --output -e --error"),
    "sudo": _launcher(_SUDO_VALUES, assigns=True),
    "taskset": _launcher(operands=1),
    "time": _launcher("-f --format -o --output"),
    "timeout": _launcher("-k --kill-after -s --signal", operands=1),
    "unbuffer": _launcher(),
    # Of those who manage versions.
    "asdf": _EXECS,
    "direnv": _launcher(verbs="exec", operands=1),
    "fnm": _launcher("--using --fnm-dir --arch", "exec"),
    "mise": _launcher("-C --cd -E --env -j --jobs", "exec x", None),
    "nodenv": _EXECS,
    "rtx": _launcher(verbs="exec x", operands=None),
    "volta": _launcher("--node --npm --pnpm --yarn", "run"),
    # Of those who keep secrets.
    "chamber": _RUNS_BEHIND_DASHES,
    "aws-vault": _RUNS_BEHIND_DASHES,
    "doppler": _RUNS_BEHIND_DASHES,
    "dotenv": _launcher(operands=None),
    "dotenvx": _RUNS_BEHIND_DASHES,
    "infisical": _RUNS_BEHIND_DASHES,
    "op": _RUNS_BEHIND_DASHES,
    # Of JavaScript.
    "bun": _launcher("-p --package --cwd", "x run"),
    "bunx": _launcher("-p --package"),
    "deno": _launcher("-c --config --import-map --env-file", "run x"),
    "node": _launcher(_NODE_VALUES),
    "npm": _launcher(_NPM_VALUES, "exec x"),
    "npx": _launcher(_NPM_VALUES),
    "pnpm": _launcher("-C --dir --package --filter -F --allow-build --reporter", "dlx exec"),
    "pnpx": _launcher("--package --allow-build"),
    "pnx": _launcher("--package --allow-build"),
    "yarn": _launcher("-p --package --cwd", "dlx exec run"),
}
for _other, _known in (("gtimeout", "timeout"), ("gnice", "nice"), ("gtime", "time"),
                       ("gstdbuf", "stdbuf"), ("nodejs", "node")):  # fmt: skip
    _LAUNCHERS[_other] = _LAUNCHERS[_known]


def launched_program(argv: Sequence[str]) -> str:
    """Return the word of `argv` that names the program in the end; empty if it cannot be told."""
    words = list(argv)
    for _ in range(_MAX_LAUNCHERS):
        launcher = _LAUNCHERS.get(PurePath(words[0]).name) if words else None
        if launcher is None:
            break
        words = _command_of(launcher, words[1:])
    return words[0] if words else ""


def _command_of(launcher: _Launcher, words: list[str]) -> list[str]:
    """Return the command among a launcher's arguments; nothing where there is none."""
    is_verb_due, operands, has_options = bool(launcher.verbs), launcher.operands, True
    while words:
        word = words[0]
        if has_options and word.startswith("-") and word != "--":
            words = _skip_option(launcher, words)
        elif word == "--" and has_options and not is_verb_due:
            words, has_options = words[1:], False
            operands = 0 if operands is None else operands
        elif is_verb_due:
            if word not in launcher.verbs:
                return []
            words, is_verb_due = words[1:], False
        elif launcher.assigns and "=" in word:
            words = words[1:]
        elif operands is None or operands > 0:
            words, operands = words[1:], None if operands is None else operands - 1
        else:
            return words
    return []


def _skip_option(launcher: _Launcher, words: list[str]) -> list[str]:
    """Return the words after an option and its value; a value to be split is put in their place."""
    word, rest = words[0], words[1:]
    name, has_value, value = word.partition("=")
    if not word.startswith("--") and word not in launcher.valued:
        name, value = _valued_letter(launcher, word)
        has_value = value
    if name in launcher.split:
        piece, rest = (value, rest) if has_value else (rest[0] if rest else "", rest[1:])
        try:
            return [*shlex.split(piece), *rest]
        except ValueError:
            return []
    return rest[1:] if name in launcher.valued and not has_value else rest


def _valued_letter(launcher: _Launcher, word: str) -> tuple[str, str]:
    """Return the option of a group such as `-iu` that takes a value, and the value behind it."""
    for at, letter in enumerate(word[1:], start=2):
        if f"-{letter}" in launcher.valued | launcher.split:
            return f"-{letter}", word[at:]
    return word, ""
