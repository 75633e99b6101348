"""The commands that talk to a gateway: `start`, `assist`, `sync` and `test-connection`.

All that a run will ever need is imported here, at the top, before it begins: an upgrade may put
another version of the program into this one's place while it runs.
"""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Callable

from allowlist import Allowlist
from config import (
    SECRET_VARIABLES,
    RunnerError,
    build_rules,
    collect_secrets,
    prepare_data_dir,
)
from gateway_client import is_confidential
from gateway_transport import GatewayError
from journal.spool import SpoolError
from places import typed_name
from runner.assist import AssistAlone, remove_stale_folders
from runner.checks import check_health, check_run, check_secret, open_client
from runner.console import print_out
from runner.folder import RunFolder, find_undelivered, prune_delivered
from runner.plan import (
    ASSIST_MAX_TIME_S,
    RUN_ID,
    parse_duration,
    plan_assist,
    plan_job,
    require_run,
)
from runner.session import Run
from tools.sync import SyncRun, count_leftovers

if TYPE_CHECKING:
    import argparse

    from config import Config
    from gateway_client import GatewayClient
    from kinds.profile import Profile
    from runner.assist import AssistPlan
    from runner.console import Console

    Command = Callable[[argparse.Namespace, Config, Profile, Console], int]


def _in_one_sentence(command: Command) -> Command:
    """Let a command raise RunnerError alone, for whoever does not know of gateways and journals."""

    @functools.wraps(command)
    def told(
        options: argparse.Namespace, config: Config, profile: Profile, console: Console
    ) -> int:
        try:
            return command(options, config, profile, console)
        except (GatewayError, SpoolError) as error:
            raise RunnerError(str(error)) from error

    return told


@_in_one_sentence
def start(options: argparse.Namespace, config: Config, profile: Profile, console: Console) -> int:
    """Run the child, connected to the gateway. Returns its exit code."""
    config.require_secret()
    job = plan_job(options, config, profile, typed_name(profile.program), console)
    if options.assist:
        job = replace(job, assist=_plan_assist_beside(options, config, console, job.run_id))
    elif options.authorized_keys is not None:
        raise RunnerError("--authorized-keys says who may enter an assist session; add --assist")
    allowlist = Allowlist(profile.extra_allowed_commands(config))
    rules = build_rules(config, os.environ)
    _tell_unprotected(config, console)
    prepare_data_dir(config.data_dir)
    prune_delivered(config.data_dir, config.retention_days)
    leftovers = count_leftovers(config.data_dir)
    if leftovers:
        console.note(
            f"{leftovers} earlier {'run is' if leftovers == 1 else 'runs are'} not delivered "
            f"whole; `{typed_name(profile.program)} sync` sends what is left"
        )

    def client() -> GatewayClient:
        return open_client(config, console, job.run_id, config.token)

    checking_client = client()
    try:
        check_run(checking_client, job.run_id, config, console)
    finally:
        checking_client.close()
    folder = RunFolder(config.data_dir, job.run_id)
    folder.create()
    console.detail(f"{config.gateway_url} knows the run; its log is kept in {folder.path}")
    run = Run(job, folder, rules, allowlist, console, client)
    try:
        return run.execute()
    except BaseException:
        if not run.was_started:
            folder.remove()  # nothing ran and nothing was sent: the run may be tried again
        raise
    finally:
        folder.close()


def _tell_unprotected(config: Config, console: Console) -> None:
    """Name the secrets that are not looked for; the runner's own whether asked or not."""
    unprotected = collect_secrets(config, os.environ).unprotected
    for name in SECRET_VARIABLES:
        if name in unprotected:
            console.note(
                f"{name} is too short to be removed wherever it is printed; let the gateway have "
                "a longer one"
            )
    if unprotected:
        console.detail(f"not protected, too short or an ordinary word: {', '.join(unprotected)}")


def _plan_assist_beside(
    options: argparse.Namespace, config: Config, console: Console, run_id: str
) -> AssistPlan | None:
    """Plan a session beside a run, which goes on without one. A file of keys must be right."""
    if is_confidential(config.gateway_url):
        return _plan_assist(options, config, console, run_id)
    console.warn("no assist session is opened: GATEWAY_URL is not encrypted; use https")
    return None


@_in_one_sentence
def assist(options: argparse.Namespace, config: Config, _profile: Profile, console: Console) -> int:
    """Let somebody elsewhere into a terminal on this machine, until the session ends."""
    config.require_secret()
    run_id = require_run(options.run_id, config)
    max_time_s = parse_duration(options.max_time, "--max-time") or ASSIST_MAX_TIME_S
    plan = _plan_assist(options, config, console, run_id)
    prepare_data_dir(config.data_dir)
    client = open_client(config, console, run_id, config.token)
    try:
        check_run(client, run_id, config, console)
    finally:
        client.close()

    def show(address: str) -> None:
        print_out(address)
        console.note("the session ends when its shell does, with Ctrl-C, or when its time is over")

    return AssistAlone(plan, max_time_s, console).execute(show)


def _plan_assist(
    options: argparse.Namespace, config: Config, console: Console, run_id: str
) -> AssistPlan:
    # Not traced: the gateway's answers to an address may hold it.
    return plan_assist(
        options,
        config,
        console,
        lambda: open_client(config, console, run_id, config.token, is_traced=False),
    )


@_in_one_sentence
def sync(options: argparse.Namespace, config: Config, profile: Profile, console: Console) -> int:
    """Deliver what earlier runs could not. Returns 1 if something is still left."""
    if options.discard is not None:
        return _discard(options.discard, config)
    count = remove_stale_folders()
    if count:
        console.detail(f"removed what {count} killed assist session{'s' * (count != 1)} left")
    config.require_secret()
    folders = list(find_undelivered(config.data_dir))
    if options.run_id is not None:
        folders = [folder for folder in folders if folder.run_id == options.run_id]
    elif options.token is not None or options.token_file is not None:
        raise RunnerError("a token is one run's; give --run-id with it")
    if not folders:
        print_out("nothing is left to deliver")
    left = sum(not _sync_one(folder, options, config, console) for folder in folders)
    if left:
        program = typed_name(profile.program)
        console.note(f"`{program} sync --discard ID` gives up on a run and deletes it")
    return 1 if left else 0


def _sync_one(
    folder: RunFolder, options: argparse.Namespace, config: Config, console: Console
) -> bool:
    """Deliver one run's leftovers; False when they are still there."""
    try:
        if not folder.lock():
            print_out(f"{folder.run_id}: it is still running")
            return True
        done = SyncRun(
            folder,
            config.token if options.run_id is not None else "",
            build_rules(config, os.environ),
            console,
            open_client=lambda url, run_id, token: open_client(config, console, run_id, token, url),
            check=lambda client, run_id: check_run(client, run_id, config, console),
            drain_timeout_s=config.drain_timeout_s,
        ).deliver()
    except (RunnerError, GatewayError, SpoolError) as error:
        console.error(f"{folder.run_id}: not delivered: {error}")
        return False
    finally:
        folder.close()
    print_out(f"{folder.run_id}: {done}")
    return True


def _discard(run_id: str, config: Config) -> int:
    if not RUN_ID.fullmatch(run_id):
        raise RunnerError("--discard takes the id of a run")
    folder = RunFolder(config.data_dir, run_id)
    if not folder.path.is_dir():
        raise RunnerError(f"there is no run {run_id} in {config.data_dir}")
    if not folder.lock():
        raise RunnerError(f"run {run_id} is still running; stop it first")
    folder.remove()
    folder.close()
    if folder.path.exists():
        raise RunnerError(f"{folder.path} cannot be deleted whole; delete it by hand")
    print_out(f"{run_id}: deleted, with everything that was not delivered")
    return 0


@_in_one_sentence
def try_connection(
    options: argparse.Namespace, config: Config, _profile: Profile, console: Console
) -> int:
    """Try the gateway step by step: reachable, secret, and the run if one is given."""
    config.require_secret()
    prepare_data_dir(config.data_dir)
    run_id = require_run(options.run_id, config) if options.run_id or options.token else ""
    client = open_client(config, console)
    check_health(client, config)
    print_out(f"ok: {config.gateway_url} answers")
    check_secret(client, config)
    client.close()
    print_out("ok: HMAC_SECRET is the gateway's")
    if run_id:
        run_client = open_client(config, console, run_id, config.token)
        check_run(run_client, run_id, config, console)
        run_client.close()
        print_out(f"ok: run {run_id} is there, and the token is right")
    return 0
