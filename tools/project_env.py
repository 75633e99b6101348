"""The `.env` of a project: made once, with what a gateway on this machine or its user says of it.

What stands there is never replaced, but for the address of this machine's gateway, if it moved.
Missing values are filled in: a placeholder gets its value, and a `.env` of the project's own gets
lines at its end. It may have come with the project; so it counts as the user's only if it has the
gateway's secret, or if the user says so.
"""

from __future__ import annotations

import getpass
import os
import re
from typing import TYPE_CHECKING, Callable, Final

from config import SETTINGS, RunnerError, load_config, write_whole
from places import find_project, tracked_by_git
from runner.console import print_out
from tools.local_gateway import find_pointed, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from config import Config, Setting
    from runner.console import Console

_NO_DOTENV: Final = "python-dotenv is not installed"
_TO_COME: Final = (
    "put the gateway's own secret into it, or repeat this once your gateway runs on this machine"
)
_HEADING: Final = "# The settings of claude-runner."
_ADDED: Final = "# Of claude-runner:"
_DEFAULT_URL: Final = next(each.default for each in SETTINGS if each.name == "gateway_url")
# What the projects of one gateway have in common, and the documentation begins with.
_COMMON: Final = {
    "gateway_url": "",
    "hmac_secret": "<must match gateway>",
    "allow_self_signed": "true",
    "program": "",
}


def is_written_by_install(content: bytes) -> bool:
    """Whether a `.env` began as one of ours."""
    return content.startswith(_HEADING.encode())


def configure(
    program: Path,
    project: Path,
    settings: Sequence[Setting],
    console: Console,
    *,
    is_known: bool = False,
) -> None:
    """Make the project's `.env`, with what can be taken over or asked for. Private: 0600.

    One that is there is kept. It may have come with the project, so the user is asked about it,
    unless `is_known`. Raises RunnerError.
    """
    env = project / ".env"
    if os.path.lexists(env):
        if env.exists() and not env.is_file():
            raise RunnerError(f"{env} is not a file; move it away, and repeat")
        if not is_known:
            _ask_about(env, _assigned(env, settings), console)
        _keep(program, env, settings, console)
        return
    values = _take_over(program, settings, console) or _ask(console)
    _write(env, format_settings(settings, values))
    missing = "" if "HMAC_SECRET" in values else f"; {_TO_COME}"
    print_out(f"{env} is made{missing}")


def _keep(program: Path, env: Path, settings: Sequence[Setting], console: Console) -> None:
    """Fill in the gateway's secret in a `.env` that `install` has made before there was one."""
    try:
        config = load_config(program, {}, env_file=env)
        if config.is_env_file_unread:
            console.warn(f".env was there and is kept; it was not read, because {_NO_DOTENV}")
            return
        if not config.hmac_secret and is_written_by_install(env.read_bytes()):
            values = _take_over(program, settings, console)
            if config.gateway_url in (values.get("GATEWAY_URL"), _DEFAULT_URL):
                print_out("; ".join(_fill_in(env, config, values)))
                return
        config.require_secret()
    except RunnerError as error:
        console.warn(f".env was there and is kept, but {error}")


def connect(
    env: Path, values: Mapping[str, str], settings: Sequence[Setting], console: Console
) -> list[str]:
    """Point a `.env` at this gateway, and return the changes as sentences. The file's mode is 0600.

    Raises RunnerError, with nothing changed, for one that leads elsewhere, or may have come with
    the project and is not known to be the user's.
    """
    if not os.path.lexists(env):
        _write(env, format_settings(settings, values))
        return [f"{env} is made, with the gateway's address and secret"]
    if env.is_symlink() or not env.is_file():
        what = "a link" if env.is_symlink() else "not a file"
        raise RunnerError(f"{env} is {what}; move it away, and repeat")
    config = load_config(env.parent, {}, own=settings, env_file=env)
    if config.is_env_file_unread:
        raise RunnerError(f"{env} was not read, because {_NO_DOTENV}; nothing was changed there")
    secret, url = values["HMAC_SECRET"], values["GATEWAY_URL"]
    is_known = config.hmac_secret == secret
    if not is_known:
        own = [
            each.variable
            for each in (*SETTINGS, *settings)
            if config.dotenv.get(each.variable, "")
            not in ("", each.default, values.get(each.variable))
        ]
        _ask_about(env, own, console, is_needed=True)
    given = config.dotenv.get("GATEWAY_URL", "")
    leads_elsewhere = given not in ("", url) and not (is_known and is_loopback(given))
    if config.hmac_secret not in ("", secret) or (leads_elsewhere and not is_known):
        what = "GATEWAY_URL" if leads_elsewhere else "HMAC_SECRET"
        raise RunnerError(
            f"{env} sets {what} for another gateway than the one on this machine ({url}); take "
            f"that line out, or use the other gateway with `start`; nothing was changed there"
        )
    # An address of the same gateway that others use as well is as good.
    replaced = {} if given in ("", url) or leads_elsewhere else {"GATEWAY_URL": url}
    done = _fill_in(env, config, values, replaced)
    if not done and env.stat().st_mode & 0o077:
        env.chmod(0o600)
        done = [f"{env} has the secret, so no other user may read it any more"]
    return done


def _fill_in(
    env: Path, config: Config, values: Mapping[str, str], replaced: Mapping[str, str] | None = None
) -> list[str]:
    """Add the settings that a `.env` lacks, and replace the given ones. Returns the changes."""
    missing = {name: value for name, value in values.items() if not config.dotenv.get(name)}
    changed = {**missing, **(replaced or {})}
    if not changed:
        return []
    if tracked_by_git(env):
        raise RunnerError(
            f"git tracks {env}, and a commit would have the secret in it; take it out "
            "(`git rm --cached .env`), and repeat; nothing was changed there"
        )
    text = env.read_bytes().decode("utf-8")
    end = "\r\n" if "\r\n" in text else "\n"
    added = []
    for name, value in changed.items():
        old = (
            r"[^\r\n]*"
            if name in (replaced or {})
            else r"[ \t]*(?:<[^\r\n]*>)?[ \t]*(?:#[^\r\n]*)?"
        )
        line = re.compile(rf"^[ \t]*(?:export[ \t]+)?{name}[ \t]*={old}(?=\r?$)", re.MULTILINE)
        new = f"{name}={_quote(value)}"
        text, count = line.subn(new.replace("\\", r"\\"), text)
        added += [] if count else [new]
    if added:
        text += end * (text != "" and not text.endswith("\n"))
        text += "".join(f"{each}{end}" for each in (_ADDED, *added))
    _write(env, text)
    return [f"{env}: set {', '.join(changed)}"]


def _write(env: Path, text: str) -> None:
    try:
        env.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(env, text.encode(), 0o600)
    except OSError as error:
        raise RunnerError(
            f"{env} cannot be written ({error.strerror}); correct that, and repeat"
        ) from error


def _assigned(env: Path, settings: Sequence[Setting]) -> list[str]:
    """Return which variables of the runner a `.env` sets, whether it can be read or not."""
    try:
        text = env.read_text("utf-8-sig", "replace") if env.is_file() else ""
    except OSError:
        return []  # which is told
    assigned = re.findall(r"(?m)^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=", text)
    return [each.variable for each in (*SETTINGS, *settings) if each.variable in assigned]


def _ask_about(
    env: Path, names: Sequence[str], console: Console, *, is_needed: bool = False
) -> None:
    """Show what a `.env` sets for the runner. Raises RunnerError if it is not the user's.

    Without a terminal nobody is asked: that it is the user's own is then for him to see, or an
    error if an answer `is_needed`.
    """
    if not names:
        return
    shown = f"{env} was there, and sets {', '.join(names)}"
    if not (os.isatty(0) and os.isatty(2)):
        if is_needed:
            raise RunnerError(
                f"{shown}, and may have come with the project; repeat this in a terminal, where "
                "you are asked about it, or move it away"
            )
        console.warn(f"{shown}: see that you wrote it before you start anything")
        return
    console.note(shown)
    try:
        answer = input("did you write it? [y/N] ").strip().lower()
    except (EOFError, KeyboardInterrupt):
        print_out("")
        answer = ""
    if answer not in ("y", "yes"):
        raise RunnerError(f"{env} is not trusted; move it away, and repeat")


def _common(settings: Sequence[Setting]) -> list[Setting]:
    return [setting for setting in (*SETTINGS, *settings) if setting.name in _COMMON]


def _take_over(program: Path, settings: Sequence[Setting], console: Console) -> dict[str, str]:
    """Return what this copy's own `.env` says of the gateway, or one that runs on this machine.

    Nothing if neither has a secret.
    """
    home = find_project(program)
    try:
        config = load_config(program, {}, env_file=home / ".env" if home else None)
    except RunnerError:
        config = None  # there is none, or it cannot be read
    if config is not None and config.is_env_file_unread:
        console.warn(f"{config.sources['.env']} was not taken over, because {_NO_DOTENV}")
    if config is None or not config.hmac_secret:
        return _ask_gateway()
    print_out(f"the gateway's address and secret are taken over from {config.sources['.env']}")
    names = [setting.variable for setting in _common(settings)]
    return {name: config.dotenv[name] for name in names if name in config.dotenv}


def _ask_gateway() -> dict[str, str]:
    """Return what the gateway that runs on this machine says of itself; nothing without one."""
    try:
        gateway = find_pointed(os.environ)
        values = {} if gateway is None else gateway.settings()
    except RunnerError:
        return {}
    if gateway is not None:
        print_out(f"the gateway that runs on this machine is {gateway.url}; its secret is in .env")
    return values


def _ask(console: Console) -> dict[str, str]:
    """Ask the user for values, if there is a terminal."""
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
