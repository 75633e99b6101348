"""The subcommand `start`: from the command line to the run.

Only what is needed until the run's program starts is imported here. The rest is imported right
behind that, and not when it is needed: an upgrade may put another version of the program into this
one's place while it runs.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, Callable

from allowlist import Allowlist
from config import (
    SECRET_VARIABLES,
    RunnerError,
    build_rules,
    collect_secrets,
    prepare_data_dir,
    tell_open_modes,
)
from gateway_client import is_confidential
from gateway_transport import GatewayError
from journal.spool import SpoolError
from places import typed_name
from runner.checks import check_run, open_client, was_stopped
from runner.folder import RunFolder, find_undelivered, prune_delivered
from runner.plan import plan_assist, plan_job
from runner.session import Run

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from config import Config
    from gateway_client import GatewayClient
    from kinds.profile import Profile
    from runner.assist import AssistPlan
    from runner.console import Console
    from runner.conversation import Asking
    from runner.plan import Job

    Subcommand = Callable[[argparse.Namespace, Config, Profile, Console], int]


def in_one_sentence(subcommand: Subcommand) -> Subcommand:
    """Turn errors of gateway and journal into RunnerError, the only one that `main` knows."""

    @functools.wraps(subcommand)
    def told(
        options: argparse.Namespace, config: Config, profile: Profile, console: Console
    ) -> int:
        try:
            return subcommand(options, config, profile, console)
        except (GatewayError, SpoolError) as error:
            raise RunnerError(str(error)) from error

    return told


@in_one_sentence
def start(options: argparse.Namespace, config: Config, profile: Profile, console: Console) -> int:
    """Run the child, connected to the gateway. Returns its exit code."""
    config.require_secret()
    job = plan_job(options, config, profile, typed_name(profile.program), console)
    if options.assist:
        job = job._replace(assist=_plan_assist_beside(options, config, console, job.run_id))
    elif options.authorized_keys is not None:
        raise RunnerError("--authorized-keys says who may enter an assist session; add --assist")
    allowlist = Allowlist(profile.extra_allowed_commands(config))
    rules = build_rules(config, os.environ)
    _tell_unprotected(config, console)
    prepare_data_dir(config.data_dir)
    for sentence in tell_open_modes(config):
        console.warn(sentence)
    prune_delivered(config.data_dir, config.retention_days)
    _tell_leftovers(config, profile, console)
    cost = None
    if console.verbosity >= 2:
        from runner.delivery_cost import DeliveryCost  # few runs are asked

        cost = DeliveryCost()

    def client() -> GatewayClient:
        count = None if cost is None else cost.note
        return open_client(config, console, job.run_id, config.token, count=count)

    checking_client = client()
    try:
        listed = check_run(checking_client, job.run_id, config, console)
        if was_stopped(listed) and not RunFolder(config.data_dir, job.run_id).path.exists():
            console.warn(
                "this run was stopped in the gateway's page before it began, so it is not "
                "started; to start it after all, press Show the line that starts it there"
            )
            return 130
        job = _use_extensions(job, checking_client, console)
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
        if cost is not None:
            console.trace(f"delivery: {cost}")


def _use_extensions(job: Job, client: GatewayClient, console: Console) -> Job:
    """Find and use the gateway's extensions of the protocol. Raises RunnerError."""
    invocation = job.invocation
    if job.asking is None and invocation.messages is None:
        return job
    body = (client.glance(client.health()) or client.ask_health()).body
    listed = body.get("extensions") if isinstance(body, dict) else None
    extensions = listed if isinstance(listed, list) else []
    if invocation.messages is not None:
        invocation.messages.tells_progress = "progress" in extensions
    if "partial" in extensions and invocation.live_argv and invocation.messages is not None:
        invocation.messages.is_live = True
        job = job._replace(invocation=invocation._replace(argv=invocation.live_argv))
    if job.asking is not None:
        has_cards = "answers" in extensions
        job = job._replace(asking=_look_for_cards(job.asking, client, console, has_cards=has_cards))
    return job


def _look_for_cards(
    asking: Asking, client: GatewayClient, console: Console, *, has_cards: bool
) -> Asking:
    """Note whether the gateway shows questions as cards, and tell who is asked. Raises RunnerError.

    A gateway without cards may have an input box. Without either, a question could not be answered.
    """
    is_alone = asking.remote and not asking.local
    if is_alone and not has_cards and asking.timeout_s is None:
        raise RunnerError(
            "this gateway shows no cards for questions, and may have no input box to answer in; "
            "add --ask-timeout TIME, so that the run does not wait for ever"
        )
    if asking.remote:
        where = "on its page" if has_cards else "in its input box, if it has one"
        console.note(
            f"the operator at {client.base_url} may approve what Claude Code asks to do, {where}"
        )
    return asking._replace(has_cards=has_cards)


def _tell_unprotected(config: Config, console: Console) -> None:
    """Name the secrets that are not looked for; the runner's own whether asked or not."""
    unprotected = collect_secrets(config, os.environ).unprotected
    for name in SECRET_VARIABLES:
        if name in unprotected:
            console.note(
                f"{name} is too short to be redacted everywhere; give the gateway a longer one"
            )
    if unprotected:
        console.detail(
            f"not redacted, because too short or an ordinary word: {', '.join(unprotected)}"
        )


def _plan_assist_beside(
    options: argparse.Namespace, config: Config, console: Console, run_id: str
) -> AssistPlan | None:
    """Plan a session beside a run, which goes on without one. A file of keys must be right."""
    if is_confidential(config.gateway_url):
        return plan_assist_here(options, config, console, run_id)
    console.warn("assist disabled: GATEWAY_URL must be https")
    return None


def plan_assist_here(
    options: argparse.Namespace, config: Config, console: Console, run_id: str
) -> AssistPlan:
    """Check how an assist session for a run is to be opened. Raises RunnerError."""
    # Not traced: the gateway's answers to an address may hold it.
    return plan_assist(
        options,
        config,
        console,
        lambda: open_client(config, console, run_id, config.token, is_traced=False),
    )


def _tell_leftovers(config: Config, profile: Profile, console: Console) -> None:
    leftovers = _count_leftovers(config.data_dir)
    if leftovers:
        console.note(
            f"{leftovers} earlier {'run is' if leftovers == 1 else 'runs are'} not delivered "
            f"whole; `{typed_name(profile.program)} sync` sends what is left"
        )


def _count_leftovers(data_dir: Path) -> int:
    """Return how many runs, none of them alive, are not delivered whole."""
    count = 0
    for folder in find_undelivered(data_dir):
        # One that cannot be used is named by `sync`, and no reason not to start another run.
        with contextlib.suppress(RunnerError):
            if folder.is_accessible and folder.lock():
                count += 1
                folder.close()
    return count
