"""The text of an operator's command -> the argv that may run, or the reason why nothing runs.

Pure: looks at nothing but its arguments and starts nothing. A command is allowed when its parsed
argv equals that of an entry, whole and exact; there is no prefix, no pattern and no shell, so that
`git status && x`, `git diff --output=x` and `A=b npm test` are simply other commands, and refused.
"""

from __future__ import annotations

import os
import posixpath
import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DOCUMENTED_COMMANDS: Final = (
    "npm test",
    "npm run test",
    "pnpm test",
    "yarn test",
    "pytest",
    "pytest -v",
    "go test ./...",
    "cargo test",
    "git diff",
    "git diff --cached",
    "git status",
    "git log --oneline -10",
    "ls -la",
    "pwd",
)

# The gateway's own limit for a command is 1,000 characters; a longer one comes from no button.
MAX_COMMAND_CHARS: Final = 1_000

# A repository's own configuration can name programs that git would start. A git command that only
# shows something must not become one of them, so what such a command can reach is switched off: the
# file system monitor; hooks (`git diff` may write the index, which runs one); a signature checker;
# everything inside submodules, whose own configuration git would obey in a git of its own; and the
# fetch of objects that a partial clone lacks, which may start ssh, a credential helper or any
# `remote.*.uploadpack`. Sources: git-config(1), githooks(5), gitattributes(5), git(1).
_ALWAYS_OFF: Final = ("core.fsmonitor=false",)
_OFF_WHILE_SHOWING: Final = (
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "log.showSignature=false",
    "protocol.allow=never",
    "safe.bareRepository=explicit",
    "status.submoduleSummary=false",
)
_DIFF_FLAGS: Final = (
    "--no-ext-diff",
    "--no-textconv",
    "--ignore-submodules=dirty",
    "--submodule=short",
)
_SHOWING: Final = {
    "annotate": ("--no-textconv",),
    "archive": (),
    "blame": ("--no-textconv",),
    "cat-file": (),
    "describe": (),
    "diff": _DIFF_FLAGS,
    "diff-files": _DIFF_FLAGS,
    "diff-index": _DIFF_FLAGS,
    "diff-tree": _DIFF_FLAGS,
    "grep": ("--no-textconv", "--no-recurse-submodules"),
    "log": _DIFF_FLAGS,
    "ls-files": (),
    "reflog": _DIFF_FLAGS,
    "reflog show": _DIFF_FLAGS,
    "shortlog": (),
    "show": _DIFF_FLAGS,
    "stash list": _DIFF_FLAGS,
    "stash show": _DIFF_FLAGS,
    "status": ("--ignore-submodules=dirty",),
    "whatchanged": _DIFF_FLAGS,
}
# These would undo the overrides; git accepts any unique beginning of them.
_SWITCHING_ON: Final = (
    "--ext-diff",
    "--filters",
    "--ignore-submodules",
    "--recurse-submodules",
    "--show-signature",
    "--submodule",
    "--textconv",
)
_NO_BEGINNINGS: Final = frozenset({"--filter", "--text"})  # options of their own
_GIT_OPTIONS_WITH_VALUE: Final = frozenset(
    {"-C", "-c", "--git-dir", "--work-tree", "--namespace", "--config-env", "--attr-source"}
)
_ELSEWHERE: Final = ("-C", "--git-dir")
# What executes the rest of its command line: a git behind it would keep the repository's programs.
_WRAPPERS: Final = frozenset({
    "bash", "busybox", "caffeinate", "chronic", "chrt", "command", "dash", "doas", "env",
    "exec", "fish", "ionice", "ksh", "nice", "nohup", "numactl", "script", "setsid", "sh",
    "stdbuf", "strace", "sudo", "taskset", "time", "timeout", "unbuffer", "watch", "xargs",
    "zsh",
})  # fmt: skip
# What leads git to another place than the current folder (`git rev-parse --local-env-vars`), or
# keeps its configuration from being listed. The rest of GIT_CONFIG_* is settings of the user's.
PLACES_OF_GIT: Final = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_ATTR_SOURCE",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NAMESPACE",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
# Unlike `protocol.allow`, the variable also overrides a repository's `protocol.<name>.allow`.
SHOWING_ENVIRONMENT: Final = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
}
# A filter can have any name, so it is switched off only when the repository names it; so can the
# hooks that git 2.54 and newer read from the configuration (`hook.<name>.enabled`).
_FILTER_OFF: Final = {b"clean": "", b"smudge": "", b"process": "", b"required": "false"}
# What stands for a program that only a repository names; `*` is a name of its choice. git-lfs does
# not start without the programs of an extension (`lfs.extension.<name>.clean`).
_PROGRAMS_OFF: Final = {
    b"gpg.program": "gpg",
    b"gpg.*.program": "gpg",
    b"lfs.*.clean": "/bin/cat",
    b"lfs.*.path": "false",
    b"lfs.*.smudge": "/bin/cat",
    b"lfs.*.standalonetransferagent": "",
    b"lfs.standalonetransferagent": "",
    b"merge.*.driver": "false",  # `--remerge-diff` merges
    b"tar.*.command": "/bin/cat",
}
# Files that git reads where a repository's configuration says, and quotes: a line that is no
# attribute, a name in the place of another.
_FILES_OFF: Final = {
    b"core.attributesfile": "/dev/null",
    b"mailmap.file": "/dev/null",
}
_USER_SCOPES: Final = frozenset({b"system", b"global", b"command"})


class AllowlistError(ValueError):
    """An entry of the user's own allowlist that cannot run as written; the message says why."""


class Allowed(NamedTuple):
    """A command that may run.

    `name` is the entry as the user or the documentation wrote it, `argv` what is executed. If there
    is a `git_query`, that program is executed first, and `argv` becomes what `override_git_config`
    makes of its output. It gets `SHOWING_ENVIRONMENT` besides, and so does what `only_shows`.
    """

    name: str
    argv: tuple[str, ...]
    git_query: tuple[str, ...] = ()
    only_shows: bool = False


class Refused(NamedTuple):
    """A command that must not run.

    `reason` is a clause that fits after a colon; it does not repeat the command.
    """

    reason: str


class Allowlist:
    """The documented commands and the user's own, compared as parsed argv."""

    def __init__(self, extra_commands: Iterable[str] = ()) -> None:
        self._entries: dict[tuple[str, ...], str] = {}
        for command in DOCUMENTED_COMMANDS:
            self._entries[tuple(shlex.split(command))] = command
        for command in extra_commands:
            self._entries.setdefault(_parse_entry(command), command)

    @property
    def commands(self) -> tuple[str, ...]:
        """Every entry as written, the documented ones first."""
        return tuple(self._entries.values())

    def check(self, text: str) -> Allowed | Refused:
        """Say whether `text`, as the gateway sent it, may run. Raises nothing."""
        if len(text) > MAX_COMMAND_CHARS:
            return Refused(f"it is longer than {MAX_COMMAND_CHARS} characters")
        if not text.isprintable():
            # shlex takes a newline for a blank, so it has to be caught before parsing.
            return Refused("it contains a line break or another control character")
        try:
            argv = tuple(shlex.split(text))
        except ValueError:
            return Refused("its quotes do not match")
        if not argv:
            return Refused("it is empty")
        name = self._entries.get(argv)
        if name is None:
            return Refused("it is not in the allowlist of this run")
        at = _subcommand_at(argv)
        only_shows = at is not None and bool(_shows(argv, at)[0])
        return Allowed(name, harden_git(argv), git_query(argv), only_shows)


def parse_extra_commands(value: str) -> tuple[str, ...]:
    """Split the value of `EXTRA_ALLOWED_COMMANDS` at its commas.

    Raises AllowlistError for an entry that cannot run; the user must correct it.
    """
    commands = tuple(entry.strip() for entry in value.split(",") if entry.strip())
    for command in commands:
        _parse_entry(command)
    return commands


def harden_git(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return `argv` so that a repository's configuration cannot make git start another program.

    What a repository can do under names of its own choice is left to `override_git_config`. A git
    command that does more than show (`git pull`, `git commit`: entries of the user's own) keeps its
    hooks, filters and network.
    """
    at = _subcommand_at(argv)
    if at is None:
        return argv
    shows, flags = _shows(argv, at)
    settings = (*_ALWAYS_OFF, *_OFF_WHILE_SHOWING) if shows else _ALWAYS_OFF
    end = at + len(shows.split()) if shows else at + 1
    return (
        argv[0],
        *(item for setting in settings for item in ("-c", setting)),
        *argv[1:at],
        "--no-pager",
        "--no-optional-locks",
        *argv[at:end],
        *flags,
        *argv[end:],
    )


def git_query(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that lists the configuration that `argv` will meet; () if it is not git.

    It needs git 2.26 and fails with an older one, so that nothing is executed then.
    """
    at = _subcommand_at(argv)
    if at is None:
        return ()
    bare = ("-c", "safe.bareRepository=explicit") if _shows(argv, at)[0] else ()
    return (argv[0], *bare, *argv[1:at], "config", "-z", "--show-scope", "--list")


def elsewhere(git_query: tuple[str, ...]) -> tuple[str, ...]:
    """Return where a command's own options lead git to (`-C`, `--git-dir`), from the folder it is
    started in; nothing if they do not.
    """
    options = git_query[: git_query.index("config")] if git_query else ()
    places = [
        options[at + 1]
        for at, option in enumerate(options[:-1])
        if option in ("-C", "--git-dir", "--work-tree")
    ]
    places += [each.partition("=")[2] for each in options if each.startswith("--git-dir=")]
    return tuple(places)


def trusted_folders(listing: bytes) -> frozenset[str]:
    """Return the folders that the user's own configuration calls safe, each by its name."""
    fields = listing.split(b"\0")
    return frozenset(
        os.fsdecode(setting.partition(b"\n")[2])
        for scope, setting in zip(fields[::2], fields[1::2])
        if scope in _USER_SCOPES and setting.partition(b"\n")[0] == b"safe.directory"
    )


def _shows(argv: tuple[str, ...], at: int) -> tuple[str, tuple[str, ...]]:
    """Return the words of a git command that only shows, and its flags; "" for any other."""
    for words in (" ".join(argv[at : at + 2]), argv[at]):
        if words in _SHOWING:
            is_other = words == "reflog" and argv[at + 1 : at + 2] in (("delete",), ("expire",))
            return ("", ()) if is_other else (words, _SHOWING[words])
    return "", ()


def override_git_config(
    argv: tuple[str, ...], listing: bytes, work_tree: str | None = None
) -> tuple[str, ...]:
    """Return `argv` with every program switched off that the repository names in `listing`.

    Shape: `argv` is hardened, `listing` the whole output of `git_query`, `work_tree` the folder
    that has the repository. Where the user's own configuration names a program under the same name
    (git-lfs), that one is put back in its place. A command that does more than show is only looked
    at. Raises AllowlistError when a name cannot be overridden, for an alias, or when the listing
    makes no sense.
    """
    fields = listing.split(b"\0")
    if fields.pop() or len(fields) % 2:
        raise AllowlistError("git's list of the configuration is incomplete")
    of_user: dict[bytes, str] = {}
    of_repository: dict[bytes, None] = {}  # a set that keeps its order
    for scope, setting in zip(fields[::2], fields[1::2]):
        key, equals, value = setting.partition(b"\n")
        if scope in _USER_SCOPES:
            of_user[key] = os.fsdecode(value) if equals else "true"
        else:
            of_repository[key] = None
    at = _subcommand_at(argv) or len(argv) - 1
    if not _shows(argv, at)[0]:
        _refuse_alias(argv[at], (*of_user, *of_repository))
        return argv
    if argv[at] in ("annotate", "blame") and b"blame.ignorerevsfile" in of_repository:
        # Nothing empties that list before its files are read.
        raise AllowlistError(
            "the repository's configuration names a file that git may quote "
            "(blame.ignoreRevsFile); unset it there, or set it in your own configuration"
        )
    overrides: dict[bytes, str] = {}
    for key in sorted(of_repository, key=lambda key: key.endswith(b".process")):
        overrides.update(_override(key, of_user))
    settings = (f"{os.fsdecode(key)}={value}" for key, value in overrides.items())
    place: tuple[str, ...] = ()
    if b"core.worktree" in of_repository:
        if work_tree is None or any(each.startswith(_ELSEWHERE) for each in argv[1:at]):
            raise AllowlistError("the repository's configuration names another working tree")
        place = (f"--work-tree={work_tree}",)
    options = (*(item for setting in settings for item in ("-c", setting)), *place)
    return (argv[0], *options, *argv[1:])


def _refuse_alias(name: str, keys: Iterable[bytes]) -> None:
    """Raise AllowlistError for what git may take for an alias: it could be any program."""
    alias = b"alias." + os.fsencode(name.lower())
    if any(key.lower() in (alias, alias + b".command") for key in keys):
        raise AllowlistError(
            f"git {name} is an alias in git's configuration; allow what it stands for instead"
        )


def _override(key: bytes, of_user: Mapping[bytes, str]) -> dict[bytes, str]:
    """Return the settings that switch off what the repository sets with `key`."""
    section, _, rest = key.partition(b".")
    name, has_name, variable = rest.rpartition(b".")
    off: dict[bytes, str] = {}
    if section == b"filter" and has_name and variable == b"process" and key not in of_user:
        # Even an empty process keeps git from using the user's `clean`, so all of it is off.
        off = {b"filter.%s.%s" % (name, each): value for each, value in _FILTER_OFF.items()}
    elif section == b"filter" and has_name and variable in _FILTER_OFF:
        off = {key: of_user.get(key, _FILTER_OFF[variable])}
    elif section == b"hook" and has_name:
        off = {b"hook.%s.enabled" % name: "false"}
    elif key in _PROGRAMS_OFF or (has_name and b"%s.*.%s" % (section, variable) in _PROGRAMS_OFF):
        shape = key if key in _PROGRAMS_OFF else b"%s.*.%s" % (section, variable)
        off = {key: of_user.get(key, _PROGRAMS_OFF[shape])}
    elif key in _FILES_OFF:
        off = {key: of_user.get(key, _FILES_OFF[key])}
    if off and b"=" in name:
        # git takes what comes before the first "=" of the option for the key.
        raise AllowlistError("its configuration names a program that cannot be switched off")
    return off


def _subcommand_at(argv: tuple[str, ...]) -> int | None:
    """Return the index of the git subcommand in `argv`; None if it is not a git command."""
    if posixpath.basename(argv[0]) != "git":
        return None
    at = 1
    while at < len(argv) and argv[at].startswith("-"):
        at += 2 if argv[at] in _GIT_OPTIONS_WITH_VALUE else 1
    return at if at < len(argv) else None


def _refuse_git_out_of_reach(command: str, argv: tuple[str, ...]) -> None:
    """Raise AllowlistError for a git whose repository's programs could not be switched off."""
    if posixpath.basename(argv[0]) in _WRAPPERS:
        words = [word for each in argv[1:] for word in each.split()]
        if any(word == "git" or (word[:1] == "/" and word.endswith("/git")) for word in words):
            raise AllowlistError(
                f"{command!r} starts git from another program, where the repository's own programs "
                "cannot be switched off; write the git command alone, such as git diff, and set "
                "variables before you start the runner"
            )
    at = _subcommand_at(argv)
    if at is None or not _shows(argv, at)[0]:
        return
    if argv[at] == "grep" and "--cached" not in argv:
        raise AllowlistError(
            f"{command!r} reads through links that lead out of the working tree; write git grep "
            "--cached, which looks into what is tracked"
        )
    for argument in argv[at:]:
        name = argument.partition("=")[0]
        is_beginning = any(full.startswith(name) for full in _SWITCHING_ON)
        if len(name) > len("--i") and is_beginning and name not in _NO_BEGINNINGS:
            raise AllowlistError(
                f"{command!r} lets the repository start programs with {name}; leave that out"
            )


def _parse_entry(command: str) -> tuple[str, ...]:
    if not command.isprintable():
        raise AllowlistError(f"{command!r} contains a control character")
    try:
        argv = tuple(shlex.split(command))
        operators = _shell_operators(command)
    except ValueError:
        raise AllowlistError(f"the quotes of {command!r} do not match") from None
    if operators:
        raise AllowlistError(
            f"{command!r} uses {operators[0]!r}, which needs a shell, and commands run without "
            "one; put it into a script and allow the script"
        )
    if not argv or not argv[0] or argv[0].startswith("__"):
        raise AllowlistError(f"{command!r} is not a command")
    if "=" in argv[0]:
        raise AllowlistError(
            f"{command!r} sets a variable, which needs a shell, and commands run without one; "
            f"write env {command}"
        )
    _refuse_git_out_of_reach(command, argv)
    return argv


def _shell_operators(command: str) -> list[str]:
    """Return the unquoted `;`, `&&`, `|`, `>` and the like of `command`."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";<>|&")
    lexer.whitespace_split = True
    lexer.commenters = ""
    return [token for token in lexer if set(token) <= set(";<>|&") and token]
