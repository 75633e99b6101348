"""`doctor --fix`: mend what can be mended without asking, and report each change and each failure.

Modes of private files, what ignore files lack, and a secret that the gateway on this machine has.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from config import RunnerError, private_paths
from places import find_project
from tools.hosts import ask_git, find_unignored, mend_ignores
from tools.local_gateway import find_pointed
from tools.project_env import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from config import Config
    from kinds.profile import Profile
    from runner.console import Console
    from tools.local_gateway import LocalGateway


def mend(config: Config, profile: Profile, console: Console) -> Iterator[tuple[bool, str]]:
    """Mend what can be; yield for each thing whether it was done, and a sentence about it."""
    for path in private_paths(config):
        yield from _close(path)
    project = find_project()
    if project is not None and find_unignored(project):
        try:
            yield from mend_ignores(project)
        except OSError as error:
            yield False, f"{error.filename} could not be changed: {error.strerror}"
    if project is not None and config.hmac_secret:
        for sentence in ask_git(project, "", ()):  # whether a commit would have it
            yield False, sentence
    if not config.hmac_secret:
        yield from _take_secret(config, profile, console)


def _close(path: Path) -> Iterator[tuple[bool, str]]:
    """Let only the user read a file or folder. What a link leads to may have another purpose."""
    try:
        status = path.stat()
        if status.st_mode & 0o077 and path.is_symlink():
            yield False, f"{path} is a symbolic link; its target was not changed"
        elif status.st_mode & 0o077:
            path.chmod(stat.S_IMODE(status.st_mode) & ~0o077)
            yield True, f"{path}: no other user can read it any more"
    except FileNotFoundError:
        pass
    except OSError as error:
        yield False, f"{path} could not be changed: {error.strerror}"


def _take_secret(config: Config, profile: Profile, console: Console) -> Iterator[tuple[bool, str]]:
    try:
        gateway = find_own_gateway(config)
        if gateway is None:
            missing = (
                "HMAC_SECRET is not set, and no gateway of yours that GATEWAY_URL could mean runs "
                "on this machine; start it, and repeat"
            )
            yield False, missing
            return
        file = Path(config.sources[".env"])
        for sentence in connect(file, gateway.settings(), profile.settings, console):
            yield True, sentence
    except RunnerError as error:
        yield False, str(error)


def find_own_gateway(config: Config) -> LocalGateway | None:
    """Return this user's gateway on this machine, if the configuration means it.

    Raises RunnerError.
    """
    gateway = find_pointed(os.environ)
    is_meant = gateway is not None and (
        config.sources["GATEWAY_URL"].startswith("default")
        or config.gateway_url in (gateway.runner_url, gateway.url)
    )
    return gateway if is_meant else None
