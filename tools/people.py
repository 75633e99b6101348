"""`gateway people`: who has a token for the gateway that runs with this data."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from config import RunnerError
from tools.local_gateway import ask, require_gateway

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

_USE: Final = (
    "write `people add NAME --role ROLE`, `people list`, `people remove NAME` or "
    "`people sign-out NAME`"
)
_ROLES: Final = ("viewer", "operator", "admin")
_DAY: Final = datetime.timedelta(days=1)


def people(words: Sequence[str], options: argparse.Namespace, data_dir: Path) -> str:
    """Do what was asked, and return what to print. Raises RunnerError."""
    action, *names = words[1:] or ["list"]
    if words[0] != "people" or action not in _ACTIONS:
        raise RunnerError(f"there is no `gateway {' '.join(words)}`; {_USE}")
    if len(names) != (action != "list"):
        raise RunnerError(f"`people {action}` takes {'no' if action == 'list' else 'one'} name")
    gateway = require_gateway(data_dir)
    return _ACTIONS[action](lambda *request: ask(gateway, *request), names, options)


def _add(api: Any, names: Sequence[str], options: argparse.Namespace) -> str:
    if options.role is None:
        raise RunnerError(f"--role is missing: {', '.join(_ROLES)}")
    body = {
        "name": names[0],
        "role": options.role,
        "own": options.own,
        "folders": options.folders,
        "until": _read_end(options.until),
    }
    made = api("POST", "/api/people", body)
    return (
        f"token for {made['name']}, who is {made['role']}; it is shown this once:\n{made['token']}"
    )


def _read_end(text: str | None) -> float | None:
    """Return when a day is over, or a moment; in this machine's time."""
    if text is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise RunnerError(
            f"--until is {text!r}; write a day, such as 2027-01-31, or 2027-01-31T18:00"
        ) from None
    return (moment + _DAY if len(text) == len("2027-01-31") else moment).timestamp()


def _list(api: Any, _names: Sequence[str], _options: argparse.Namespace) -> str:
    found = api("GET", "/api/people", None)["people"]
    if not found:
        return "there is no token but the admin token"
    width = max(len(each["name"]) for each in found)
    return "\n".join(f"{each['name']:{width}}  {_shown(each)}" for each in found)


def _shown(person: dict[str, Any]) -> str:
    bounds = [*(["own runs"] if person["own"] else []), *person["folders"]]
    told = [f"{person['role']:8}", *([f"sees {', '.join(bounds)}"] if bounds else [])]
    until = person["until"]
    if until is not None:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(until))
        told.append(f"ended {day}" if until <= time.time() else f"until {day}")
    count = person["sessions"]
    told += [f"{count} session{'s' * (count != 1)}"] if count else []
    return ", ".join(told)


def _remove(api: Any, names: Sequence[str], _options: argparse.Namespace) -> str:
    api("POST", f"/api/people/{quote(names[0], safe='')}/remove", {})
    return f"{names[0]} has no token any more, and no session"


def _sign_out(api: Any, names: Sequence[str], _options: argparse.Namespace) -> str:
    ended = api("POST", f"/api/people/{quote(names[0], safe='')}/sign-out", {})["ended"]
    return f"{ended} session{'s' * (ended != 1)} of {names[0]} ended"


_ACTIONS: Final = {"add": _add, "list": _list, "remove": _remove, "sign-out": _sign_out}
