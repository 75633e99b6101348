"""The runner's configuration: options, then the environment, then `.env`, then defaults.

Read once, checked at the door, and frozen. `.env` is the one beside `wrapper/` and no other: a file
that happens to lie in the current folder must not decide where output is sent. Its values never
enter the process's environment, so that no child inherits them.
"""

from __future__ import annotations

import errno
import os
import re
import select
import shlex
import stat
import sys
import time
import unicodedata
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple
from urllib.parse import urlsplit

from allowlist import AllowlistError, parse_extra_commands
from places import find_project, is_in_repository, tracked_by_git

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from redact import KnownValues, Rules, TokenShape

VERSION: Final = "0.1.0"

# Never handed to a child or to a command, and known to the redactor. The last one is the embedded
# gateway's: who has such an address can send messages to it, or read them.
SECRET_VARIABLES: Final = ("HMAC_SECRET", "CLAUDE_RUNNER_TOKEN", "CLAUDE_RUNNER_GATEWAY_NOTIFY")

# Given to a child although the shims took them out: from 3.11 on, Python takes them for the place
# where it and its packages are.
_TAKEN_OUT: Final = ("PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__")

# RFC 2104, section 3: a key that is shorter than the hash weakens it. An attacker who sees one
# request can try keys offline.
SAFE_SECRET_BYTES: Final = 32

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
# What a file is called while it is written.
DRAFT_SUFFIX: Final = ".claude-runner-new"


class RunnerError(Exception):
    """Something that ends the program with exit code 1; the message is one plain sentence."""


class ConfigError(RunnerError):
    """A setting that is missing or wrong; the user has to correct it."""


class Setting(NamedTuple):
    """One setting: its field in `Config`, its variable, its default as text, and its meaning."""

    name: str
    variable: str
    default: str | None
    parse: Callable[[str, str], Any]
    meaning: str
    secret: bool = False
    # It names a program, an allowlist, a permission, or where files are made and removed: not for a
    # file that comes with a project to say. An address is; ALLOW_SELF_SIGNED is about that address,
    # whose owner may get a certificate that verifies anyway; it says nothing of an address that is
    # from elsewhere. The host of an assist session is a login to this machine.
    grants: bool = False


class Config(NamedTuple):
    """Every setting of the runner, parsed. Units: `_s` is seconds.

    `sources` says by variable where each value came from, and under ".env" which file was looked
    at; `placeholders` where an unset variable still has the example's placeholder. `own` has the
    settings of this kind of runner, by the names that its profile gives them.
    """

    gateway_url: str
    hmac_secret: str
    allow_self_signed: bool
    extra_allowed_commands: tuple[str, ...]
    token: str
    data_dir: Path
    poll_interval_s: float
    command_timeout_s: float
    drain_timeout_s: float
    retention_days: float
    redact_patterns: Path | None
    allow_remote_input: bool
    allow_remote_answers: bool
    allow_http: bool
    sends_changes: bool
    tmate_command: tuple[str, ...]
    tmate_host: str
    tmate_port: str
    tmate_rsa_fingerprint: str
    tmate_ed25519_fingerprint: str
    sources: Mapping[str, str]
    dotenv: Mapping[str, str]
    placeholders: Mapping[str, str]
    own: Mapping[str, Any]
    # Without python-dotenv, where a command does without it.
    is_env_file_unread: bool = False
    # A sentence for each value that is hardly what the user meant.
    oddities: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return object.__repr__(self)  # without its values, which may be secrets

    def require_secret(self) -> None:
        """Raise ConfigError unless there is what every request is signed with."""
        if not self.hmac_secret:
            raise ConfigError(self.missing_sentence("HMAC_SECRET", "the gateway's own secret"))

    @property
    def is_secret_short(self) -> bool:
        """Whether the secret is set, but could be guessed."""
        return 0 < len(self.hmac_secret.encode("utf-8")) < SAFE_SECRET_BYTES

    def missing_sentence(self, variable: str, meaning: str) -> str:
        """Say that a variable is unset, and where it can be set."""
        if variable in self.placeholders:
            return (
                f"{variable} still has the example's placeholder; put {meaning} in its place "
                f"({self.placeholders[variable]})"
            )
        return f"{variable} is not set; put {meaning} into {self.sources['.env']}"

    def values(self, own: Sequence[Setting]) -> list[tuple[Setting, Any]]:
        """Return each setting with its value, those of this kind of runner last."""
        general = [(setting, getattr(self, setting.name)) for setting in SETTINGS]
        return general + [(setting, self.own[setting.name]) for setting in own]

    def child_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return what a child or a command inherits: everything but the runner's own secrets."""
        kept = {name: value for name, value in environ.items() if name not in SECRET_VARIABLES}
        given = sys._xoptions
        return {**kept, **{name: str(given[name]) for name in _TAKEN_OUT if name in given}}


# --- one value each -------------------------------------------------------------------------------


def _parse_secret(value: str, variable: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{variable} is not UTF-8; copy it again") from None
    return value


def _parse_token(value: str, variable: str) -> str:
    # It travels in a header, where anything else would be refused or change the request.
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ConfigError(
            f"{variable} contains a character that a token cannot have; copy it again"
        )
    return value


def _parse_bool(value: str, variable: str) -> bool:
    lowered = value.strip().lower()
    if lowered not in _TRUE | _FALSE:
        raise ConfigError(f"{variable} is {value!r}; write true or false")
    return lowered in _TRUE


def _parse_seconds(value: str, variable: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 86_400:
        raise ConfigError(f"{variable} is {value!r}; write a number of seconds, such as 2")
    return seconds


def _parse_days(value: str, variable: str) -> float:
    try:
        days = float(value)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36_500:
        raise ConfigError(f"{variable} is {value!r}; write a number of days, such as 30")
    return days


def parse_argv(value: str, variable: str) -> tuple[str, ...]:
    """Read a program and the arguments that come first. Raises ConfigError."""
    try:
        argv = tuple(shlex.split(value))
    except ValueError as error:
        # Without its value, which may hold a secret.
        is_quote = "quotation" in str(error)
        what = (
            "has a quote that is not closed; close it, or" if is_quote else "ends with a backslash;"
        )
        raise ConfigError(f"{variable} {what} leave it out") from None
    if not (argv and argv[0]):
        raise ConfigError(f"{variable} is {value!r}; write the program to run")
    return argv


def parse_extra(value: str, variable: str) -> tuple[str, ...]:
    """Read commands for the allowlist, separated by commas. Raises ConfigError."""
    try:
        return parse_extra_commands(value)
    except AllowlistError as error:
        raise ConfigError(f"{variable}: {error}") from error


def parse_gateway_url(value: str, variable: str) -> str:
    """Read the address of a gateway. Raises ConfigError."""
    try:
        parts = urlsplit(value.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), ""
    if not usable or not parts.netloc.isprintable() or " " in parts.netloc:
        raise ConfigError(
            f"{variable} is {value!r}; write an address such as https://localhost:3100"
        )
    if parts.username or parts.password:
        raise ConfigError(f"{variable} must not contain a user name or password")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ConfigError(f"{variable} is {value!r}; write it without ? and #")
    path = parts.path.rstrip("/")
    if not re.fullmatch(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*", path):
        raise ConfigError(f"{variable} is {value!r}; write its path with letters, digits, -._~")
    return f"{parts.scheme}://{parts.netloc}{path}"


def absolute_path(text: str, what: str) -> Path:
    """Return the path that a user means, links not resolved. Raises ConfigError.

    `what` is the option or variable that it was given with.
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # there is no such user, or this one has no home
        raise ConfigError(
            f"{what} is {text!r}, a home folder that does not exist; write the path without the ~"
        ) from None
    except OSError as error:  # a relative path, and the folder that it starts from is gone
        raise ConfigError(
            f"{what} is {text!r}, but the current folder cannot be used ({error.strerror}); "
            "change to another one"
        ) from error


def _parse_patterns_file(value: str, variable: str) -> Path | None:
    if not value:
        return None
    path = absolute_path(value, variable)
    if not os.path.isfile(path):
        raise ConfigError(f"{variable} names {path}, which does not exist; correct it, or unset it")
    return path


def _parse_host(value: str, variable: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}", value):
        raise ConfigError(f"{variable} is {value!r}; write a host name, such as tmate.example.com")
    return value


def _parse_port(value: str, variable: str) -> str:
    if value and not (re.fullmatch(r"[0-9]{1,5}", value) and 0 < int(value) < 65_536):
        raise ConfigError(f"{variable} is {value!r}; write a port, such as 22")
    return value


def _parse_fingerprint(value: str, variable: str) -> str:
    if value and not re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}=?", value):
        raise ConfigError(
            f"{variable} is {value!r}; write it as ssh-keygen -l does: SHA256: and 43 characters"
        )
    return value.rstrip("=")


SETTINGS: Final = (
    Setting(
        "gateway_url",
        "GATEWAY_URL",
        "https://localhost:3100",
        parse_gateway_url,
        "address of the gateway",
    ),
    Setting(
        "hmac_secret",
        "HMAC_SECRET",
        None,
        _parse_secret,
        "the gateway's secret, which signs every request",
        secret=True,
    ),
    Setting(
        "allow_self_signed",
        "ALLOW_SELF_SIGNED",
        "false",
        _parse_bool,
        "accept a certificate that does not verify, and from then on only that one",
    ),
    Setting(
        "extra_allowed_commands",
        "EXTRA_ALLOWED_COMMANDS",
        "",
        parse_extra,
        "commands that the operator may run besides the documented ones, separated by commas",
        grants=True,
    ),
    Setting(
        "token",
        "CLAUDE_RUNNER_TOKEN",
        None,
        _parse_token,
        "the run's capability token, if not given with --token or --token-file",
        secret=True,
    ),
    Setting(
        "data_dir",
        "CLAUDE_RUNNER_DATA_DIR",
        None,
        absolute_path,
        "folder for logs and journals",
        grants=True,
    ),
    Setting(
        "poll_interval_s",
        "CLAUDE_RUNNER_POLL_INTERVAL",
        "2",
        _parse_seconds,
        "seconds between polls for commands, if the gateway has no long poll",
    ),
    Setting(
        "command_timeout_s",
        "CLAUDE_RUNNER_COMMAND_TIMEOUT",
        "600",
        _parse_seconds,
        "seconds after which an operator's command is killed",
    ),
    Setting(
        "drain_timeout_s",
        "CLAUDE_RUNNER_DRAIN_TIMEOUT",
        "60",
        _parse_seconds,
        "seconds without progress after which delivery at the end of a run is left to sync",
    ),
    Setting(
        "retention_days",
        "CLAUDE_RUNNER_RETENTION_DAYS",
        "30",
        _parse_days,
        "days after which the folder of a delivered run is removed",
    ),
    Setting(
        "redact_patterns",
        "CLAUDE_RUNNER_REDACT_PATTERNS",
        "",
        _parse_patterns_file,
        "a file of your own token shapes to redact, one a line: acme_[A-Za-z0-9]{20,64}",
    ),
    Setting(
        "allow_remote_input",
        "CLAUDE_RUNNER_ALLOW_REMOTE_INPUT",
        "false",
        _parse_bool,
        "let the operator type into an interactive session, and talk to a run that listens",
        grants=True,
    ),
    Setting(
        "allow_remote_answers",
        "CLAUDE_RUNNER_ALLOW_REMOTE_ANSWERS",
        "false",
        _parse_bool,
        "let the operator answer what Claude Code asks in a run with a prompt: permissions too",
        grants=True,
    ),
    Setting(
        "allow_http",
        "CLAUDE_RUNNER_ALLOW_HTTP",
        "false",
        _parse_bool,
        "allow an unencrypted gateway that is not on this machine",
        grants=True,
    ),
    Setting(
        "sends_changes",
        "CLAUDE_RUNNER_CHANGES",
        "true",
        _parse_bool,
        "send what a run changes in its git repository, as changes.diff",
    ),
    Setting(
        "tmate_command",
        "CLAUDE_RUNNER_TMATE_COMMAND",
        "tmate",
        parse_argv,
        "assist: the program that shares the terminal",
        grants=True,
    ),
    Setting(
        "tmate_host",
        "CLAUDE_RUNNER_TMATE_HOST",
        "",
        _parse_host,
        "assist: a tmate server of your own; without it, that of ~/.tmate.conf or tmate.io",
        grants=True,
    ),
    Setting(
        "tmate_port",
        "CLAUDE_RUNNER_TMATE_PORT",
        "",
        _parse_port,
        "assist: the server's port",
    ),
    Setting(
        "tmate_rsa_fingerprint",
        "CLAUDE_RUNNER_TMATE_RSA_FINGERPRINT",
        "",
        _parse_fingerprint,
        "assist: the fingerprint of the server's RSA key, SHA256:…",
    ),
    Setting(
        "tmate_ed25519_fingerprint",
        "CLAUDE_RUNNER_TMATE_ED25519_FINGERPRINT",
        "",
        _parse_fingerprint,
        "assist: the fingerprint of the server's Ed25519 key, SHA256:…",
    ),
)


def load_config(
    program: Path,
    environ: Mapping[str, str],
    *,
    own: Sequence[Setting] = (),
    options: Mapping[str, str] | None = None,
    env_file: Path | None = None,
) -> Config:
    """Read and check every setting.

    `program` is the folder of the runner's modules; `own` are the settings of this kind of runner;
    `options` maps variables to what the command line said. Raises ConfigError for a wrong value.
    """
    file = env_file or _default_env_file(program, environ)
    settings = (*SETTINGS, *own)
    variables = [setting.variable for setting in settings]
    found = _read_dotenv(file, variables, required=env_file is not None)
    read = found or _EnvFile({}, {}, [])
    dotenv = read.values
    layers = (("option", options or {}), ("environment", environ), (str(file), dotenv))
    if env_file is None and find_project(program) is not None:
        _refuse_to_be_granted(file, settings, dotenv, layers)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {".env": str(file)}
    placeholders: dict[str, str] = {}
    for setting in settings:
        text, sources[setting.variable], placeholder_in = _find(setting.variable, layers)
        if placeholder_in:
            placeholders[setting.variable] = placeholder_in
        named = setting.variable
        if text is not None:
            where = sources[setting.variable]
            if where == str(file):
                where = f"line {read.lines[setting.variable]} of {file}"
                named = f"{setting.variable} ({where})"
            read.oddities.extend(_tell_oddities(setting, text, where))
        if text is None:
            text = setting.default
        if text is None and setting.name == "data_dir":
            text = str(_default_data_dir(program, environ))
        values[setting.name] = "" if text is None else setting.parse(text, named)
    known = {name: value for name, value in dotenv.items() if not _is_placeholder(value)}
    return Config(
        **{setting.name: values.pop(setting.name) for setting in SETTINGS},
        own=values,
        sources=sources,
        dotenv=known,
        placeholders=placeholders,
        is_env_file_unread=found is None,
        oddities=tuple(read.oddities),
    )


def granted(settings: Iterable[Setting], dotenv: Mapping[str, str]) -> list[str]:
    """Return which variables of a `.env` name a program, an allowlist or a permission."""
    names = []
    for setting in settings:
        text, _, _ = _find(setting.variable, [("", dotenv)])
        if setting.grants and text is not None and text != setting.default:
            is_off = setting.parse is _parse_bool and text.lower() in _FALSE
            names += [] if is_off else [setting.variable]
    return names


def _refuse_to_be_granted(
    file: Path,
    settings: Iterable[Setting],
    dotenv: Mapping[str, str],
    layers: Sequence[tuple[str, Mapping[str, str]]],
) -> None:
    """Raise ConfigError for a `.env` that came with the project and says what may run here.

    Or which certificate of the user's own gateway is good enough.
    """
    names = granted((*SETTINGS, *settings), dotenv)
    if _find("GATEWAY_URL", layers)[1] in ("option", "environment"):
        text, source, _ = _find("ALLOW_SELF_SIGNED", layers)
        is_lenient = source == str(file) and text is not None and text.lower() not in _FALSE
        names += ["ALLOW_SELF_SIGNED"] if is_lenient else []
    if not names:
        return
    tracked = tracked_by_git(file)
    if tracked or (tracked is None and is_in_repository(file)):
        reason = f"git tracks {file}" if tracked else f"git cannot say whether it tracks {file}"
        raise ConfigError(
            f"{reason}, so it may have come with the project, and it sets "
            f"{', '.join(sorted(set(names)))}; look at it, and if you want that, start with "
            f"--env-file {shlex.quote(str(file))}"
        )


def _find(
    variable: str, layers: Iterable[tuple[str, Mapping[str, str]]]
) -> tuple[str | None, str, str]:
    """Return the text, where it is from, and where a placeholder stands instead of it."""
    placeholder_in = ""
    for source, values in layers:
        text = values.get(variable, "").strip()
        if _is_placeholder(text):
            placeholder_in = placeholder_in or source
        elif text:
            return text, source, ""
    told = f"default; a placeholder in {placeholder_in}" if placeholder_in else "default"
    return None, told, placeholder_in


def _is_placeholder(text: str) -> bool:
    return text.startswith("<") and text.endswith(">")


def _default_env_file(program: Path, environ: Mapping[str, str]) -> Path:
    project = find_project(program)
    if project is not None:
        return project / ".env"
    return _user_folder(environ, "XDG_CONFIG_HOME", ".config") / ".env"


def _default_data_dir(program: Path, environ: Mapping[str, str]) -> Path:
    project = find_project(program)
    if project is not None:
        return project / ".data"
    return _user_folder(environ, "XDG_STATE_HOME", ".local/state")


def _user_folder(environ: Mapping[str, str], variable: str, otherwise: str) -> Path:
    base = Path(environ.get(variable, ""))
    if not base.is_absolute():  # a relative one is to be ignored: XDG Base Directory
        base = absolute_path(environ.get("HOME", "~"), "HOME") / otherwise
    return base / "claude-runner"


class _EnvFile(NamedTuple):
    """What a `.env` sets, in which line each name stands, and what is odd about a name."""

    values: dict[str, str]
    lines: dict[str, int]
    oddities: list[str]


def _read_dotenv(file: Path, variables: Sequence[str], *, required: bool) -> _EnvFile | None:
    """Return what the file sets; None if it sets something and there is nothing to read it with."""
    text = _env_text(file, required=required)
    if not text.strip():
        return _EnvFile({}, {}, [])
    parse_stream = _find_dotenv_parser()
    if parse_stream is None:
        return None
    names = "|".join(variables)
    # A line that cannot be read is another program's, unless it seems to set one of these.
    seems_ours = re.compile(rf"\W*(?:(?:export|set|setenv)\s+)?\W*(?:{names})\b", re.I)
    swallowed = re.compile(rf"\n\W*(?:export\s+)?({names})[^\S\n]*=")
    found = _EnvFile({}, {}, [])
    # The parser alone: a secret may contain "${", and nothing in it is meant to be replaced.
    for line in parse_stream(StringIO(text)):
        written = line.original.string.lstrip()
        blank = line.original.string[: len(line.original.string) - len(written)]
        number = line.original.line + blank.count("\n")
        if line.error and (seems_ours.match(written) or re.match(_OPENS_QUOTE, written)):
            raise ConfigError(
                f"line {number} of {file} cannot be read; write NAME=value, and close what a "
                "quote opens"
            )
        lost = swallowed.search(written)
        if lost is not None or (line.key in variables and "\n" in written.rstrip()):
            what = "a later line" if lost is None else lost.group(1)
            raise ConfigError(
                f"line {number} of {file} opens a quote that takes {what} in as well; close it in "
                "its own line"
            )
        if line.key is None or line.value is None:
            continue
        meant = "".join(each for each in line.key if not _is_invisible(each)).strip('"`')
        if meant != line.key and meant in variables:
            found.oddities.append(
                f"line {number} of {file} does not set {meant}, because of quotes or invisible "
                "characters in the name; write the line anew"
            )
        # What python-dotenv makes of it depends on its version.
        found.values[line.key] = "" if re.match(_IS_COMMENT, written) else line.value
        found.lines[line.key] = number
    return found


def _find_dotenv_parser() -> Callable[[StringIO], Iterable[Any]] | None:
    """Return python-dotenv's parser. Without the package around it, which imports ten times as much
    (`logging`, `tempfile`): no part of that is used.
    """
    package = PathFinder.find_spec("dotenv")
    places = None if package is None else package.submodule_search_locations
    spec = None if places is None else PathFinder.find_spec("dotenv.parser", places)
    if spec is None or spec.loader is None:
        return None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    parse_stream: Callable[[StringIO], Iterable[Any]] = module.parse_stream
    return parse_stream


# Used with `re`, which compiles them when there is a file to read.
_NAME: Final = r"(?:export[^\S\n]+)?(?:'[^'\n]+'|[^=#\s]+)[^\S\n]*="
# With `#` right behind the `=` it may be a password.
_IS_COMMENT: Final = rf"{_NAME}(?:[^\S\n]+#|#(?:\s|$))"
# Not PATH="/opt/bin":$PATH, which a shell reads and python-dotenv leaves out.
_OPENS_QUOTE: Final = rf"(?s:{_NAME}[^\S\n]*(?:\"(?:[^\"\\]|\\.)*|'[^']*)\Z)"


def _env_text(file: Path, *, required: bool) -> str:
    try:
        raw = read_bytes(file)
    except (FileNotFoundError, NotADirectoryError):
        if required:
            raise ConfigError(f"{file} does not exist; correct --env-file") from None
        return ""
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}; correct that, or name another file with "
            "--env-file"
        ) from error
    try:
        # Some editors put a byte order mark before the first name.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{file} cannot be read: it is not UTF-8 (line {number}); save it as UTF-8"
        ) from None
    if "\0" in text:
        number = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigError(f"line {number} of {file} contains a NUL character; remove it")
    return _unify_lines(text)


def _unify_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


# Pairs that look like the quotes of a shell, and that no parser of `.env` takes for them.
_QUOTES: Final = ("''", '""', "``", "\u201c\u201d", "\u201d\u201d", "\u2018\u2019", "\u201e\u201c")
# Besides the categories of Unicode for what is not shown: fillers and blanks.
_BLANKS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def _is_invisible(character: str) -> bool:
    if character in " \t\n":
        return False
    return (
        unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp")
        or character in _BLANKS
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def _tell_oddities(setting: Setting, text: str, where: str) -> Iterator[str]:
    """Yield a sentence for each thing in a value that a person does not see, or does not mean."""
    quotes, inside = text[:1] + text[-1:], text[1:-1]
    if (
        len(text) > 1
        and setting.parse is not parse_argv  # there quotes group words
        and quotes in _QUOTES
        and not (quotes[0] in inside or quotes[1] in inside)
    ):
        yield (
            f"{setting.variable} ({where}) begins and ends with a quote, and both count as part of "
            "the value; remove them"
        )
    hidden = next(filter(_is_invisible, text), None)
    if hidden is not None:
        name = unicodedata.name(hidden, "a control character")
        yield (
            f"{setting.variable} ({where}) contains an invisible character (U+{ord(hidden):04X}, "
            f"{name.lower()}); remove it, or copy the value again"
        )


def build_rules(config: Config, environ: Mapping[str, str]) -> Rules:
    """Return what is secret here: shapes, and the values that this machine knows as secrets.

    Raises RunnerError when the user's file of token shapes cannot be read.
    """
    from redact import Rules

    known = collect_secrets(config, environ)
    return Rules(known.values, _read_token_shapes(config.redact_patterns))


def collect_secrets(config: Config, environ: Mapping[str, str]) -> KnownValues:
    """Return the values that this machine knows as secrets, the runner's own among them."""
    from redact import collect_known_values

    own = dict(zip(SECRET_VARIABLES, (config.hmac_secret, config.token)))
    return collect_known_values(environ, config.dotenv, own, always=SECRET_VARIABLES)


def _read_token_shapes(path: Path | None) -> tuple[TokenShape, ...]:
    if path is None:
        return ()
    from redact import PatternError, parse_token_shapes

    text = read_text(path, str(path))
    try:
        return parse_token_shapes(text)
    except PatternError as error:
        raise RunnerError(f"{path}, line {error.line_number}: {error.message}") from error


def read_text(path: Path, name: str) -> str:
    """Return what a file of the user's says. Raises RunnerError, which calls it `name`."""
    try:
        return _unify_lines(read_bytes(path).decode("utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RunnerError(f"{name} cannot be read: {reason}; name a text file") from error


_MAX_BYTES: Final = 1_048_576
# How long a pipe may take to have a writer, and a writer to write something.
_NO_WRITER_S: Final = 1.0
_SILENT_WRITER_S: Final = 5.0


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, or what is written into a pipe: `--env-file <(decrypt .env)`.

    Never waits for a writer that does not come. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        give_up_at = time.monotonic() + _NO_WRITER_S
        content = bytearray()
        while len(content) <= _MAX_BYTES:
            try:
                block = os.read(fd, 65_536)
            except BlockingIOError:
                if not select.select([fd], [], [], _SILENT_WRITER_S)[0]:
                    raise OSError(errno.EAGAIN, "it is a pipe whose writer sends nothing") from None
                continue
            content += block
            if block:
                continue
            if content or not is_pipe:
                return bytes(content)
            if time.monotonic() >= give_up_at:
                raise OSError(errno.EAGAIN, "it is a pipe without a writer")
            time.sleep(0.02)
        raise OSError(errno.EFBIG, "it is larger than 1 MiB")
    finally:
        os.close(fd)


def check_data_dir(folder: Path) -> None:
    """Raise ConfigError for a folder with data of others: what lies there may be sent and run."""
    otherwise = "or set --data-dir or CLAUDE_RUNNER_DATA_DIR to another folder"
    try:
        owner = os.stat(folder).st_uid
    except OSError:
        return  # there is none, or it is of no use
    if owner != os.geteuid():
        raise ConfigError(
            f"the data folder {folder} belongs to another user; run as that user, {otherwise}"
        )
    if tracked_by_git(folder):
        raise ConfigError(
            f"git tracks files in the data folder {folder}, so they came with the project; take "
            f"them out (`git rm -r --cached {shlex.quote(str(folder))}`) if they are yours, "
            f"{otherwise}"
        )


def tell_open_modes(config: Config) -> Iterator[str]:
    """Yield a sentence for each private file or folder that other users could read."""
    for path in private_paths(config):
        try:
            status = path.stat()
        except OSError:
            continue
        if status.st_mode & 0o077:
            yield f"other users can read {path}; `chmod go= {shlex.quote(str(path))}` ends that"


def private_paths(config: Config) -> list[Path]:
    """Return what no other user should be able to read; a `.env` only if it sets something."""
    files = [Path(config.sources[".env"])] if config.dotenv else []
    folders = (config.data_dir, config.data_dir / "runs")
    return [*filter(os.path.isdir, folders), *files]


def prepare_data_dir(folder: Path) -> None:
    """Make the data folder, private and ignored by git. Raises ConfigError when it cannot."""
    check_data_dir(folder)
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists() or ignore.stat().st_size == 0:  # the disk was full the last time
            write_private(ignore, "*\n")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigError(
            f"the data folder {folder} cannot be written ({error.strerror}); "
            "set --data-dir or CLAUDE_RUNNER_DATA_DIR to another one"
        ) from error


def write_private(path: Path, text: str) -> None:
    """Write a file that only the user may read. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that it is there whole, or as it was before. Raises OSError."""
    draft = path.with_name(f"{path.name}{DRAFT_SUFFIX}")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        os.fchmod(fd, mode)
    draft.replace(path)
