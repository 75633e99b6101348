"""`doctor --fix`: mend what can be mended without asking, and say what was done.

Modes of private files, what ignore files lack, and a secret that the gateway on this machine has.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from config import RunnerError, private_paths
from places import find_project
from tools.hosts import add_ignores, find_unignored
from tools.local_gateway import find_pointed
from tools.project_env import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from config import Config
    from kinds.profile import Profile
    from runner.console import Console
    from tools.local_gateway import LocalGateway


def mend(config: Config, profile: Profile, console: Console) -> Iterator[str]:
    """Mend what can be, and yield a sentence for each thing that was done, or could not be."""
    for path in private_paths(config):
        yield from _close(path)
    project = find_project()
    if project is not None and find_unignored(project):
        try:
            yield from add_ignores(project)
        except OSError as error:
            yield f"{error.filename} could not be changed: {error.strerror}"
    if not config.hmac_secret:
        yield from _take_secret(config, profile, console)


def _close(path: Path) -> Iterator[str]:
    """Let only the user read a file or folder. What a link leads to may have another purpose."""
    try:
        status = path.lstat()
        if status.st_mode & 0o077 and not stat.S_ISLNK(status.st_mode):
            path.chmod(stat.S_IMODE(status.st_mode) & ~0o077)
            yield f"{path}: no other user can read it any more"
    except FileNotFoundError:
        pass
    except OSError as error:
        yield f"{path} could not be changed: {error.strerror}"


def _take_secret(config: Config, profile: Profile, console: Console) -> Iterator[str]:
    try:
        gateway = find_own_gateway(config)
        if gateway is None:
            yield (
                "HMAC_SECRET is not set, and no gateway of yours that GATEWAY_URL could mean runs "
                "on this machine; start it, and repeat"
            )
            return
        file = Path(config.sources[".env"])
        yield from connect(file, gateway.settings(), profile.settings, console)
    except RunnerError as error:
        yield str(error)


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
