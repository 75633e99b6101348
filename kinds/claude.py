"""How Claude Code is started, and how its output is read.

What only some ways to start it need is imported there: `--help` and each start wait for the rest.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Final

from config import ConfigError, RunnerError, Setting, parse_argv
from kinds.claude_modes import MODES
from kinds.profile import (
    DENIAL_EXIT_CODE,
    MAX_ARGUMENT_BYTES,
    WAITING,
    WORKING,
    Invocation,
    Profile,
    Worktree,
)
from places import find_program

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from config import Config
    from kinds.claude_sessions import SessionNotes


def _parse_flavor(value: str, variable: str) -> str:
    if value not in ("auto", "claude", "plain"):
        raise ConfigError(f"{variable} is {value!r}; write auto, claude or plain")
    return value


class ClaudeProfile(Profile):
    """Claude Code, or any other program that takes a prompt as its last argument."""

    name = "claude"
    title = "Claude Code"
    program = "claude-runner"
    program_variable = "CLAUDE_COMMAND"
    runs_in_demo = True
    example_arguments = "--model opus"
    settings = (
        Setting(
            "program",
            program_variable,
            "claude",
            parse_argv,
            "the program to run, with arguments that come first; never seen by a shell",
            grants=True,
        ),
        Setting(
            "flavor",
            "CLAUDE_RUNNER_FLAVOR",
            "auto",
            _parse_flavor,
            "whether CLAUDE_COMMAND is Claude Code: auto (as it is started), claude, or plain",
        ),
    )

    def add_start_options(self, add_option: Callable[..., None]) -> None:
        """Let the user choose between the messages as text and Claude Code's own output."""
        add_option(
            "--output",
            metavar="FORM",
            choices=("auto", "text"),
            help="auto (default): print mode shows what Claude Code does while it does it; "
            "text: Claude Code's own output, at its end",
        )
        add_option(
            "--ask",
            metavar="WHOM",
            choices=("remote", "local", "both", "never"),
            help="who answers what Claude Code asks in print mode: remote (the operator), local "
            "(you, in this terminal), both or never (default: remote if "
            "CLAUDE_RUNNER_ALLOW_REMOTE_ANSWERS is true, else never)",
        )
        add_option(
            "--ask-timeout",
            metavar="TIME",
            help="deny a question that has no answer after this time (default: wait)",
        )
        add_option(
            "--stay",
            metavar="TIME",
            help="after each turn, keep the run open this long for further messages",
        )
        add_option(
            "--remote-max-mode",
            metavar="MODE",
            choices=MODES,
            help="the highest permission mode that the operator may switch to: "
            f"{', '.join(MODES)} (default: the one that the run begins with)",
        )
        add_option(
            "--fail-on-denial",
            action="store_true",
            help=f"end with exit code {DENIAL_EXIT_CODE} if Claude Code was refused a tool",
        )
        add_option("--resume", metavar="SESSION", help="go on with this session of Claude Code")
        add_option(
            "--continue",
            action="store_true",
            dest="continues",
            help="go on with the last session of Claude Code in this folder",
        )

    def can_ask(self, config: Config) -> bool:
        """Whether the program is Claude Code itself."""
        return self._is_claude_code(config)

    def listening_invocation(
        self, config: Config, prompt: str, options: argparse.Namespace, *, asks: bool
    ) -> Invocation:
        """Return how to start it so that it reads messages; with the user's own arguments first."""
        arguments = (*_session_arguments(options), *options.arguments)
        _refuse_contradictions((*self.argv(config), *arguments), prompt)
        found = _listening(self.argv(config), prompt, arguments, options, asks=asks)
        return found._replace(worktree=_worktree((*self.argv(config), *arguments)))

    def in_mode(self, arguments: Sequence[str], mode: str) -> tuple[str, ...]:
        """Return the user's arguments with this permission mode in the place of their own."""
        kept: list[str] = []
        items = iter(arguments)
        for item in items:
            if item == _MODE_ARGUMENT:
                next(items, None)
            elif not item.startswith(f"{_MODE_ARGUMENT}="):
                kept.append(item)
        return (*kept, _MODE_ARGUMENT, mode)

    def repeatable_arguments(self, arguments: Sequence[str]) -> Mapping[str, str]:
        """Return the permission mode and the model, where the user has chosen them."""
        named = {"permissionMode": _MODE_ARGUMENT, "model": _MODEL_ARGUMENT}
        found = {name: _value_of(arguments, option) for name, option in named.items()}
        return {name: value for name, value in found.items() if value}

    def resume_argv(self, config: Config, session_id: str) -> tuple[str, ...] | None:
        """Return what goes on with a session at the keyboard."""
        return (*self.argv(config), "--resume", session_id)

    def is_session_kept(self, env: Mapping[str, str], session_id: str) -> bool:
        """Whether there is a transcript of this session."""
        folder = claude_folder(env) / "projects"
        return any(folder.glob(f"*/{session_id}.jsonl"))

    def is_child(self, argv: Sequence[str]) -> bool:
        """Whether this is Claude Code: the program itself, or the script of an interpreter."""
        script = next((word for word in argv[1:] if not word.startswith("-")), "")
        is_script = bool(argv) and _INTERPRETER.fullmatch(Path(argv[0]).name)
        return is_claude_code(argv) or bool(is_script and is_claude_code([script]))

    def answers_version(self, config: Config) -> bool:
        """Whether the program is Claude Code itself."""
        return self._is_claude_code(config)

    def _is_claude_code(self, config: Config) -> bool:
        """Whether it is, by its name or by the user's word."""
        flavor = config.own["flavor"]
        return flavor == "claude" or (flavor == "auto" and is_claude_code(self.argv(config)))

    def program_folders(self, home: Path, env: Mapping[str, str]) -> Mapping[str, Sequence[Path]]:
        """Return where its own installer, and npm by its usual settings, put it."""
        prefixes = [env.get("npm_config_prefix"), env.get("NPM_CONFIG_PREFIX")]
        folders = [Path(prefix, "bin") for prefix in prefixes if prefix]
        usual = [home / ".npm-global" / "bin", Path("/usr/local/bin"), Path("/usr/bin")]
        return {
            "~/.claude/local": [home / ".claude" / "local"],
            "~/.local/bin": [home / ".local" / "bin"],
            "npm's global folders": [*folders, *usual],
        }

    def invocation(
        self, config: Config, prompt: str | None, mode: str, options: argparse.Namespace
    ) -> Invocation:
        """Return how to start it with this prompt.

        Source: how Claude Code reads its arguments. `--` goes before a prompt that begins with a
        dash; a single word that is the name of a subcommand is a prompt only with a blank after it.
        """
        started = self.argv(config)
        arguments = (*_session_arguments(options), *options.arguments)
        if not self._is_claude_code(config):
            states = StateWatcher() if mode == "interactive" else None
            if len(arguments) > len(options.arguments):
                raise RunnerError("--resume and --continue are Claude Code's; leave them out")
            argv = (*started, *arguments, *(() if prompt is None else (prompt,)))
            is_sure = mode != "print" or config.own["flavor"] != "auto"
            return Invocation(argv, states=states, hint=None if is_sure else _HINT)
        _refuse_contradictions((*started, *arguments), prompt)
        if mode == "print":
            found = _print_mode(started, prompt or "", arguments, options)
        else:
            from kinds.claude_sessions import SessionNotes

            states = StateWatcher(SessionNotes(claude_folder(os.environ) / "sessions"))
            session_id, added = _session_of(arguments, options)
            found = Invocation(
                (*started, *added, *arguments, *_prompt_argument(prompt)),
                states=states,
                session_id=session_id,
                added_variables=_SESSION_VARIABLES,
            )
        return found._replace(worktree=_worktree((*started, *arguments)))


def claude_folder(env: Mapping[str, str]) -> Path:
    """Return where Claude Code keeps what belongs to its user."""
    chosen = env.get("CLAUDE_CONFIG_DIR")
    return Path(chosen) if chosen else Path(env.get("HOME") or "~").expanduser() / ".claude"


def _refuse_contradictions(arguments: Sequence[str], prompt: str | None) -> None:
    """Refuse what ends the run at once, and a prompt that would not be read. Raises RunnerError."""
    leaving = _given(arguments, _LEAVING_ARGUMENTS)
    if leaving:
        raise RunnerError(
            f"{leaving} would take the work out of this run, and the page could not show or stop "
            "it; leave it out"
        )
    if prompt is not None and _value_of(arguments, "--input-format") == "stream-json":
        raise RunnerError(
            "with --input-format stream-json Claude Code does not read the prompt; leave one of "
            "them out (--stay or --ask let you send further messages)"
        )


def _prompt_argument(prompt: str | None) -> tuple[str, ...]:
    if prompt is None:
        return ()
    is_word = len(prompt.split()) == 1 and not prompt.endswith(" ")
    return ("--", f"{prompt} " if is_word else prompt)


def _worktree(arguments: Sequence[str]) -> Worktree | None:
    """Return the worktree that Claude Code makes with these arguments, if it makes one.

    Source: https://code.claude.com/docs/en/worktrees. Where a hook puts it elsewhere, or the
    session moves on, it is not found. A blank name, as of a pull request, is one to be looked for.
    """
    for at, argument in enumerate(arguments):
        option, _, name = argument.partition("=")
        if option not in ("--worktree", "-w"):
            continue
        following = arguments[at + 1 : at + 2]
        if not name and following and not following[0].startswith("-"):
            name = following[0]
        is_plain = re.fullmatch(r"[\w.+-]+(?:/[\w.+-]+)*", name) and ".." not in name
        names = (name, name.replace("/", "+")) if is_plain else ()
        return Worktree(_WORKTREES, tuple(dict.fromkeys(names)))
    return None


def _session_arguments(options: argparse.Namespace) -> tuple[str, ...]:
    """Return what chooses the session that the user names. Raises RunnerError."""
    resumed: str | None = getattr(options, "resume", None)
    continues = getattr(options, "continues", False)
    if not (resumed or continues):
        return ()
    if (resumed and continues) or _names_any(options.arguments, _SESSION_ARGUMENTS):
        raise RunnerError("give one of --resume, --continue, and a session's arguments after --")
    return ("--resume", resumed) if resumed else ("--continue",)


def _session_of(
    arguments: Sequence[str], options: argparse.Namespace
) -> tuple[str | None, tuple[str, ...]]:
    """Return the id of a session at the keyboard, if it is known, and what gives it that id."""
    if _names_any(arguments, _SESSION_ARGUMENTS):
        return getattr(options, "resume", None), ()
    if arguments and not arguments[0].startswith("-"):
        return None, ()  # a subcommand
    import uuid

    session_id = str(uuid.uuid4())
    return session_id, ("--session-id", session_id)


def _print_mode(
    started: Sequence[str], prompt: str, arguments: Sequence[str], options: argparse.Namespace
) -> Invocation:
    added, rest = _common_of_print_mode(started, arguments, options)
    argv = (*started, *added, *arguments)
    if len(os.fsencode(prompt)) > MAX_ARGUMENT_BYTES:
        live_argv = _live(started, added, arguments)
        return Invocation(argv, os.fsencode(prompt), live_argv=live_argv, **rest)
    # Until 2.0, -p does not keep such a word from being a subcommand.
    is_subcommand = prompt.strip() in _OLD_SUBCOMMANDS
    told = _prompt_argument(prompt) if is_subcommand else ("--", prompt)
    return Invocation((*argv, *told), live_argv=_live(started, added, arguments, told), **rest)


def _listening(
    started: Sequence[str],
    prompt: str,
    arguments: Sequence[str],
    options: argparse.Namespace,
    *,
    asks: bool,
) -> Invocation:
    """Return how to start it so that it reads messages, if the user's arguments leave room."""
    from kinds.claude_control import (
        ASKING_ARGUMENTS,
        WITHHELD_VARIABLES,
        ClaudeDialogue,
        listening_arguments,
    )

    added, rest = _common_of_print_mode(started, arguments, options, is_asked=asks)
    in_the_way = _given(arguments, _FORMAT_ARGUMENTS)
    if in_the_way or "messages" not in rest:
        reason = f"{in_the_way or '--output text'} goes without questions and further messages"
        return _print_mode(started, prompt, arguments, options)._replace(cannot_ask=reason)
    theirs = _given(arguments, _ASKING_ARGUMENTS)
    if asks and theirs:
        rest["cannot_ask"] = f"{theirs} says who is asked"
        asks = False
    added += [*listening_arguments(prompt), *(ASKING_ARGUMENTS if asks else ())]
    return Invocation(
        (*started, *added, *arguments),
        live_argv=_live(started, added, arguments),
        dialogue=ClaudeDialogue(asks=asks),
        # JSON holds no half characters.
        first_message=os.fsencode(prompt).decode("utf-8", "replace"),
        modes=_modes_up_to(options.remote_max_mode or _first_mode(arguments)),
        withheld_variables=WITHHELD_VARIABLES,
        **rest,
    )


def _live(
    started: Sequence[str],
    added: Sequence[str],
    arguments: Sequence[str],
    told: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the argv with which it prints its words while it writes them; empty if it cannot."""
    if "stream-json" not in added:
        return ()
    more = () if _names_any(arguments, (_PARTIAL,)) else (_PARTIAL,)
    return (*started, *added, *more, *arguments, *told)


def _common_of_print_mode(
    started: Sequence[str],
    arguments: Sequence[str],
    options: argparse.Namespace,
    *,
    is_asked: bool = False,
) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments that print mode adds, and what the invocation says of them."""
    added: list[str] = []
    rest: dict[str, Any] = {
        "is_text_only": True,
        "keeps_session": not _given((*started, *arguments), ("--no-session-persistence",)),
    }
    if not _names_any(arguments, ("-p", "--print")):
        added.append("-p")
    if not _names_any(arguments, _SESSION_ARGUMENTS):
        import uuid

        rest["session_id"] = str(uuid.uuid4())
        added += ["--session-id", rest["session_id"]]
    if (options.output or "auto") == "auto" and not _names_any(arguments, _FORMAT_ARGUMENTS):
        added += ["--output-format", "stream-json"]
        added += [] if _names_any(arguments, ("--verbose",)) else ["--verbose"]
        from kinds.claude_stream import ClaudeStream

        is_granted = _names_any((*started, *arguments), _GRANTING_ARGUMENTS)
        rest["messages"] = ClaudeStream(is_asked=is_asked, is_granted=is_granted)
    return added, rest


def _first_mode(arguments: Sequence[str]) -> str:
    """Return the permission mode that the user's own arguments choose."""
    return _value_of(arguments, _MODE_ARGUMENT) or "default"


def _value_of(arguments: Sequence[str], option: str) -> str:
    """Return the value that the arguments give to an option; empty for none."""
    for item, following in zip(arguments, (*arguments[1:], "")):
        name, has_value, value = item.partition("=")
        if name == option:
            return value if has_value else following
    return ""


def _modes_up_to(highest: str) -> tuple[str, ...]:
    """Return the modes that may be switched to; above the known ones there is none to offer."""
    return MODES[: MODES.index(highest) + 1] if highest in MODES else MODES


def _given(arguments: Sequence[str], names: Sequence[str]) -> str:
    """Return the first of these that the user gives; an empty text for none."""
    return next((name for name in names if _names_any(arguments, (name,))), "")


# Known to 2.0.0 and later.
_PARTIAL: Final = "--include-partial-messages"
# Arguments that say who is asked.
_ASKING_ARGUMENTS: Final = ("--permission-prompt-tool", "--permission-prompts")
# Arguments that hand the work to a daemon of Claude Code's own.
_LEAVING_ARGUMENTS: Final = ("--bg", "--background")
# Arguments that say what needs no permission.
_GRANTING_ARGUMENTS: Final = ("--allowedTools", "--allowed-tools")
# 1.0 and 2.0, whose `-p` runs them.
_OLD_SUBCOMMANDS: Final = frozenset(
    ["config", "doctor", "install", "mcp", "migrate-installer", "plugin", "setup-token", "update"]
)
# Claude Code's own background sessions and its agent view go on outside the run, where the page
# cannot show or stop them, or are killed with it and lost.
_SESSION_VARIABLES: Final = (("CLAUDE_CODE_DISABLE_AGENT_VIEW", "1"),)
_HINT: Final = (
    "this run looks like a session, which does not end by itself: if CLAUDE_COMMAND starts Claude "
    "Code, stop the run and set CLAUDE_RUNNER_FLAVOR=claude (set it to plain if it does not)"
)
_INTERPRETER: Final = re.compile(r"(?:ba|da|z|k)?sh|node|bun|python[0-9.]*")
# Below the repository's root.
_WORKTREES: Final = ".claude/worktrees"
# Arguments of Claude Code that choose the session themselves.
_MODE_ARGUMENT: Final = "--permission-mode"
_MODEL_ARGUMENT: Final = "--model"
_SESSION_ARGUMENTS: Final = ("--session-id", "--resume", "-r", "--continue", "-c", "--from-pr")
# Arguments that choose what it prints, or that go with one format only.
_FORMAT_ARGUMENTS: Final = ("--output-format", "--input-format", "--json-schema")
_CLAUDE_NAMES: Final = frozenset({"claude", "claude-code", "claude.exe"})
# As a package manager is told, with a version or without.
_CLAUDE_PACKAGE: Final = re.compile(r"(?:npm:)?@anthropic-ai/claude-code(?:@[^/]*)?")
# The files that npm installs, also for one system alone, and those of its own installer.
_CLAUDE_FILE: Final = re.compile(
    r"(?:^|/)@anthropic-ai/claude-code(?:-[a-z0-9-]+)?/(?:bin/)?"
    r"(?:cli\.m?js|cli-wrapper\.cjs|claude(?:\.exe)?)"
    r"\Z|/claude/versions/\d+\.\d+\.\d+[^/]*\Z"
)


def is_claude_code(argv: Sequence[str]) -> bool:
    """Whether an argv starts Claude Code, itself or through launchers, or a link to it."""
    from kinds.launchers import launched_program

    program = launched_program(argv)
    if not program:
        return False
    if Path(program).name in _CLAUDE_NAMES or _CLAUDE_PACKAGE.fullmatch(program):
        return True
    found = None if "/" in program else find_program(program, os.environ.get("PATH"))
    place = found or program
    return any(_CLAUDE_FILE.search(each) for each in (place, os.path.realpath(place)))


def _names_any(arguments: Sequence[str], options: Sequence[str]) -> bool:
    return any(item.split("=", 1)[0] in options for item in arguments)


# A bell, or the beginning of a control string: `]` is an operating system command.
_BEGIN: Final = re.compile(rb"\x07|\x1b(?:[\]PX^_]|\Z)")
# What ends a string: its terminator, a cancelling character, or any other escape sequence.
_END: Final = re.compile(rb"[\x07\x18\x1a]|\x1b(?:\\|\Z)?")
_END_WITHOUT_BELL: Final = re.compile(rb"[\x18\x1a]|\x1b(?:\\|\Z)?")
# Enough of a string for the number of a title and the sign behind it.
_KEPT_BYTES: Final = 16
_TITLE: Final = re.compile(rb"\][02];")
# Less would be noticed late.
_LOOK_EVERY_S: Final = 0.5
_WAITING_SIGN: Final = "\N{EIGHT SPOKED ASTERISK}"


class StateWatcher:
    """The state of one session. Thread: one caller. How the output is cut makes no difference.

    A title that shows work proves that titles are kept up. Until then its sign of waiting, and a
    bell, are not believed, and `notes` say more.
    """

    def __init__(self, notes: SessionNotes | None = None) -> None:
        self.state: str | None = None
        self._has_shown_work = False
        self._notes = notes
        self._ends_in_escape = False
        self._string: bytes | None = None  # the beginning of the control string that is under way

    @property
    def look_every_s(self) -> float | None:
        """How often to look at the notes, as long as titles say nothing."""
        return None if self._notes is None or self._has_shown_work else _LOOK_EVERY_S

    def begin(self, session_id: int) -> None:
        """Take the session that the notes are to be about."""
        if self._notes is not None:
            self._notes.session_id = session_id

    def look(self) -> None:
        """Look at the notes."""
        if self._notes is not None and not self._has_shown_work:
            self.state = self._notes.state() or self.state

    def _tell(self, state: str | None) -> None:
        self._has_shown_work = self._has_shown_work or state == WORKING
        if state is not None and self._has_shown_work:
            self.state = state

    def feed(self, raw: bytes) -> None:
        """Look at a piece of the program's output; `state` is what it says by now."""
        if not raw:
            return
        if self._ends_in_escape:
            self._ends_in_escape = False
            raw = b"\x1b" + raw
        at = 0
        while at < len(raw):
            at = self._look(raw, at) if self._string is None else self._go_on(self._string, raw, at)

    def _look(self, raw: bytes, at: int) -> int:
        """Find the next bell or string; return where to go on."""
        begin = _BEGIN.search(raw, at)
        if begin is None:
            return len(raw)
        if begin[0] == b"\x07":
            self._tell(WAITING)
        elif begin[0] == b"\x1b":
            self._ends_in_escape = True
        else:
            self._string = begin[0][1:]
        return begin.end()

    def _go_on(self, string: bytes, raw: bytes, at: int) -> int:
        """Find the end of the string; return where to go on."""
        end = (_END if string[:1] == b"]" else _END_WITHOUT_BELL).search(raw, at)
        stop = len(raw) if end is None else end.start()
        self._string = string + raw[at : min(stop, at + _KEPT_BYTES - len(string))]
        if end is None:
            return len(raw)
        if end[0] == b"\x1b" and end.end() == len(raw):
            self._ends_in_escape = True
            return len(raw)
        if end[0] in (b"\x07", b"\x1b\\"):
            self._tell(_read_title(self._string))
        self._string = None
        return stop if end[0] == b"\x1b" else end.end()


def _read_title(string: bytes) -> str | None:
    """Return what a control string says, None if it says nothing or is no title."""
    number = _TITLE.match(string)
    sign = string[number.end() :].decode("utf-8", "replace")[:1] if number else ""
    if sign == _WAITING_SIGN:
        return WAITING
    is_circle = "\N{CIRCLE WITH LEFT HALF BLACK}" <= sign <= "\N{CIRCLE WITH UPPER HALF BLACK}"
    is_braille = "\N{BRAILLE PATTERN BLANK}" <= sign <= "\N{BRAILLE PATTERN DOTS-12345678}"
    return WORKING if is_circle or is_braille else None
