"""`status`: what runs here, what the gateway does not have yet, and what the gateway is.

Starts nothing and sends nothing of a run. What it finds is a plain value, for `--json` and for the
lines that a person reads alike.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Final

from config import RunnerError, prepare_data_dir
from places import PROGRAM, find_project, typed_name
from runner.console import painted, print_out
from runner.folder import all_folders, find_undelivered
from tools.local_gateway import (
    data_option,
    find_gateway,
    find_pointed,
    gateway_folder,
    is_loopback,
    is_taken,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from config import Config
    from kinds.profile import Profile
    from runner.console import Console
    from runner.folder import RunFolder

_GOOD: Final = "32"
_WARNING: Final = "33"
_BAD: Final = "31"
_FAINT: Final = "2"
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def status(options: argparse.Namespace, config: Config, profile: Profile, console: Console) -> int:
    """Print what there is. Returns 0, whatever that is."""
    prepare_data_dir(config.data_dir)
    found = _look(config, console, has_own_data=not options.data_dir)
    if options.json:
        print_out(json.dumps(found, indent=2))
    else:
        print_out("\n".join(_lines(found, typed_name(profile.program))))
    return 0


def _look(config: Config, console: Console, *, has_own_data: bool) -> dict[str, Any]:
    undelivered = {folder.run_id for folder in find_undelivered(config.data_dir)}
    running, left = [], []
    # One that is just being made, and has no journal yet, is left alone: its lock is its claim.
    folders = [each for each in all_folders(config.data_dir) if each.spool_path.exists()]
    for folder in folders:
        if is_taken(folder.path / "lock"):
            running.append(_told(folder))
        elif folder.run_id in undelivered:
            left.append(_told(folder))
    waiting = [each for each in (config.data_dir / "wait").glob("*/lock") if is_taken(each)]
    return {
        "project": str(find_project() or config.data_dir),
        "dataFolder": str(config.data_dir),
        "running": running,
        "undelivered": left,
        "foldersThatWait": len(waiting),
        "gateway": _ask_gateway(config, console),
        "localGateway": _look_for_gateway(config, has_own_data=has_own_data),
    }


def _told(folder: RunFolder) -> dict[str, Any]:
    """Return a run as it is told: `since` is its beginning, in seconds since the epoch."""
    return {
        "id": folder.run_id,
        "since": round((folder.path / "lock").stat().st_mtime),
        "folder": str(folder.path),
    }


def _ask_gateway(config: Config, console: Console) -> dict[str, Any]:
    """Return whether the configured gateway answers and takes the signature; else what is wrong."""
    told: dict[str, Any] = {"url": config.gateway_url, "source": config.sources["GATEWAY_URL"]}
    try:
        from gateway_transport import GatewayError
        from runner.checks import check_health, check_secret, open_client
    except ImportError:
        return {**told, "answers": None, "problem": "not asked: requests is not installed"}
    client = None
    try:
        client = open_client(config, console)
        check_health(client, config)
        told["answers"] = True
        config.require_secret()
        check_secret(client, config)
    except (GatewayError, RunnerError) as error:
        return {"answers": False, **told, "problem": str(error)}
    finally:
        if client is not None:
            client.close()
    return {**told, "problem": None}


def _look_for_gateway(config: Config, *, has_own_data: bool) -> dict[str, Any] | None:
    """Return the gateway that runs on this machine, of this copy or of the same user."""
    try:
        found = find_gateway(gateway_folder(config.data_dir)) or find_pointed(os.environ)
    except RunnerError as error:
        return {"problem": str(error)}
    if found is None:
        return None
    is_own = found.folder == gateway_folder(config.data_dir)
    return {
        "url": found.url,
        "runnerUrl": found.runner_url,
        "process": found.pid,
        "folder": str(found.folder),
        "isOfThisCopy": is_own,
        "endedBy": f"gateway --stop{'' if is_own and has_own_data else f' {data_option(found)}'}",
    }


# --- as a person reads it -------------------------------------------------------------------------


def _lines(found: dict[str, Any], program: str) -> Iterator[str]:
    running, left = found["running"], found["undelivered"]
    shown = _count(running, "run", _GOOD)
    # Of this folder, and not of all that the gateway knows: a run of `up` is another project's.
    place, name = os.path.split(found["dataFolder"])
    yield f"running in {place if name == '.data' else found['dataFolder']}: {shown}"
    yield from map(_run_line, running)
    if found["foldersThatWait"]:
        yield f"waiting for runs of the page: {_count_of(found['foldersThatWait'], 'folder')}"
    sends = f"; `{program} sync` sends what is left" if left else ""
    yield f"not delivered whole: {_count(left, 'run', _WARNING)}{sends}"
    yield from map(_run_line, left)
    gateway = found["gateway"]
    if gateway["problem"] is None:
        yield f"gateway: {painted('ok', _GOOD)}, {gateway['url']} answers and accepts the secret"
    else:
        yield f"gateway: {painted('not ok', _BAD)}, {gateway['problem']}"
    local = found["localGateway"]
    if local is None:
        is_meant = gateway["problem"] is not None and is_loopback(gateway["url"])
        has_one = (PROGRAM / "gateway").is_dir()
        starts = f"; `{program} gateway` starts one" if is_meant and has_one else ""
        yield f"  none runs on this machine{starts}"
    elif "problem" in local:
        yield f"  {local['problem']}"
    else:
        is_it = local["runnerUrl"] == gateway["url"]
        name = "it runs on this machine" if is_it else f"on this machine runs {local['url']}"
        yield painted(
            f"  {name}: process {local['process']}, data in {local['folder']}; "
            f"`{program} {local['endedBy']}` ends it",
            _FAINT,
        )


def _count(runs: list[dict[str, Any]], noun: str, color: str) -> str:
    return painted(_count_of(len(runs), noun), color) if runs else "nothing"


def _count_of(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _run_line(run: dict[str, Any]) -> str:
    age_s = max(0, int(time.time()) - run["since"])
    shown = next(
        (f"{age_s // size} {unit}" for size, unit in _UNITS if age_s >= size), f"{age_s} s"
    )
    return f"  {run['id']}  began {shown} ago  {painted(run['folder'], _FAINT)}"
