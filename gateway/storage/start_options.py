"""What a run was started with, of what another one may be started with as well. Pure.

It comes from a run, and goes into a line that a person pastes into a terminal: so each value is of
a form that is known, and none of them names a program, a file, or a mode that asks for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_TIME: Final = re.compile(r"(?=[0-9])(?:[0-9]{1,4}h)?(?:[0-9]{1,5}m)?(?:[0-9]{1,7}s)?", re.ASCII)
_MODE: Final = re.compile("plan|default|acceptEdits")
# By the name on the wire: what it may be, and its option of `start`.
_OF_JOBS: Final = {
    "ask": (re.compile("remote|local|both|never"), "--ask"),
    "askTimeout": (_TIME, "--ask-timeout"),
    "stay": (_TIME, "--stay"),
    "remoteMaxMode": (_MODE, "--remote-max-mode"),
    "output": (re.compile("auto|text"), "--output"),
}
_OF_ALL: Final = {"maxTime": (_TIME, "--max-time")}
# Claude Code's own.
_OF_PROGRAM: Final = {
    "permissionMode": (_MODE, "--permission-mode"),
    "model": (re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,99}", re.ASCII), "--model"),
}
_FAILS: Final = "failOnDenial"


def read_options(value: Any) -> dict[str, Any]:
    """Return what is known of it, and of the right form."""
    sent = value if isinstance(value, Mapping) else {}
    known: dict[str, Any] = {}
    for name, (form, _) in {**_OF_JOBS, **_OF_ALL, **_OF_PROGRAM}.items():
        if isinstance(sent.get(name), str) and form.fullmatch(sent[name]):
            known[name] = sent[name]
    if sent.get(_FAILS) is True:
        known[_FAILS] = True
    return known


def start_arguments(options: Mapping[str, Any], *, is_job: bool) -> list[str]:
    """Return what of it goes into the line of a run with a prompt, or of a session."""
    found = [
        word
        for name, (_, option) in {**(_OF_JOBS if is_job else {}), **_OF_ALL}.items()
        if name in options
        for word in (option, options[name])
    ]
    found += ["--fail-on-denial"] if is_job and _FAILS in options else []
    program = [
        word
        for name, (_, option) in _OF_PROGRAM.items()
        if name in options
        for word in (option, options[name])
    ]
    return [*found, "--", *program] if program else found
