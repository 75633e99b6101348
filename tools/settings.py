"""The `.env` of a project that the runner is installed in: made once, and never changed."""

from __future__ import annotations

import getpass
import os
import re
from typing import TYPE_CHECKING, Final

from config import SETTINGS, RunnerError, load_config, write_whole
from places import find_project
from runner.console import print_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from config import Setting
    from runner.console import Console

_NO_DOTENV: Final = "python-dotenv is not installed"
_HEADING: Final = "# The settings of claude-runner."
# What the projects of one gateway have in common, and the documentation begins with.
_COMMON: Final = {
    "gateway_url": "",
    "hmac_secret": "<must match gateway>",
    "allow_self_signed": "true",
    "command": "",
}


def is_written_by_install(content: bytes) -> bool:
    """Whether a `.env` began as one of ours."""
    return content.startswith(_HEADING.encode())


def configure(program: Path, project: Path, settings: Sequence[Setting], console: Console) -> None:
    """Make the project's `.env`, with what can be taken over or asked for. Private: 0600.

    One that is there is the user's own and is kept. Raises RunnerError.
    """
    env = project / ".env"
    if os.path.lexists(env):
        try:
            config = load_config(program, {}, env_file=env)
            if config.is_env_file_unread:
                console.warn(f".env was there and is kept; it was not read, because {_NO_DOTENV}")
            else:
                config.require_secret()
        except RunnerError as error:
            console.warn(f".env was there and is kept, but {error}")
        return
    values = _take_over(program, settings, console) or _ask(console)
    try:
        write_whole(env, format_settings(settings, values).encode(), 0o600)
    except OSError as error:
        raise RunnerError(
            f"{env} cannot be written ({error.strerror}); mend that, and repeat"
        ) from error
    missing = "" if "HMAC_SECRET" in values else "; put the gateway's own secret into it"
    print_out(f"{env} is made{missing}")


def _common(settings: Sequence[Setting]) -> list[Setting]:
    return [setting for setting in (*SETTINGS, *settings) if setting.name in _COMMON]


def _take_over(program: Path, settings: Sequence[Setting], console: Console) -> dict[str, str]:
    """Return what this copy's own `.env` says of the gateway; nothing if it has no secret."""
    home = find_project(program)
    try:
        config = load_config(program, {}, env_file=home / ".env" if home else None)
    except RunnerError:
        return {}  # there is none, or nobody can use it
    if config.is_env_file_unread:
        console.warn(f"{config.sources['.env']} was not taken over, because {_NO_DOTENV}")
    if not config.hmac_secret:
        return {}
    print_out(f"the gateway's address and secret are taken over from {config.sources['.env']}")
    names = [setting.variable for setting in _common(settings)]
    return {name: config.dotenv[name] for name in names if name in config.dotenv}


def _ask(console: Console) -> dict[str, str]:
    """Ask for what only the user knows; nothing where nobody can answer."""
    if not (os.isatty(0) and os.isatty(2)):
        return {}
    console.note("an empty answer leaves the value to be filled in later")
    try:
        return {**_ask_one("GATEWAY_URL", input), **_ask_one("HMAC_SECRET", getpass.getpass)}
    except (EOFError, KeyboardInterrupt):
        print_out("")
        return {}


def _ask_one(variable: str, read: Callable[[str], str]) -> dict[str, str]:
    setting = next(each for each in SETTINGS if each.variable == variable)
    shown = " (it is not shown)" if setting.secret else f" [{setting.default}]"
    while True:
        answer = read(f"{setting.meaning}{shown}: ").strip()
        try:
            return {variable: str(setting.parse(answer, variable))} if answer else {}
        except RunnerError as error:
            print_out(str(error))


def format_settings(settings: Sequence[Setting], values: Mapping[str, str]) -> str:
    """Return a `.env` with the common settings: these values, or those to begin with."""
    lines = [f"{_HEADING} `info` lists all of them, and where each value comes from."]
    for setting in _common(settings):
        value = _quote(values[setting.variable]) if setting.variable in values else None
        default = _COMMON[setting.name] or setting.default
        lines += ["", f"# {setting.meaning}", f"{setting.variable}={value or default}"]
    return "\n".join([*lines, ""])


def _quote(value: str) -> str:
    """Return a value as `.env` wants it written."""
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=-]*", value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
