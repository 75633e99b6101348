"""The subcommands that talk to a gateway, besides `start`: `assist`, `sync`, `test-connection`."""

from __future__ import annotations

import os
import re
import shlex
import stat
from typing import TYPE_CHECKING, Callable, Final
from urllib.parse import urlsplit

from config import (
    RunnerError,
    build_rules,
    check_data_dir,
    parse_gateway_url,
    prepare_data_dir,
)
from gateway_transport import GatewayError
from journal.spool import Spool, SpoolError
from places import typed_name
from redact import printable
from runner.assist import AssistAlone, remove_stale_folders
from runner.attempts import ACK_IN_SYNC, Pacer, acknowledge, sleep
from runner.checks import check_health, check_run, check_secret, open_client
from runner.console import print_out, shown_size
from runner.conversation import withdrawal
from runner.folder import RUN_ID, RunFolder, find_undelivered
from runner.plan import (
    ASSIST_MAX_TIME_S,
    parse_duration,
    require_run,
)
from runner.poster import Poster
from runner.upload import file_parts, redact_again
from tools.start import in_one_sentence, plan_assist_here

if TYPE_CHECKING:
    import argparse

    from config import Config
    from gateway_client import GatewayClient
    from kinds.profile import Profile
    from runner.console import Console

    Subcommand = Callable[[argparse.Namespace, Config, Profile, Console], int]

    from redact import Rules
    from runner.console import Console
    from runner.folder import RunFolder
    from runner.mailbox import CertificateRefused, WorkerEnded, WorkerFailed

    OpenClient = Callable[[str, str, str], GatewayClient]  # gateway's address, run id, token


@in_one_sentence
def assist(options: argparse.Namespace, config: Config, _profile: Profile, console: Console) -> int:
    """Share a terminal on this machine with a helper, until the session ends."""
    config.require_secret()
    run_id = require_run(options.run_id, config)
    max_time_s = parse_duration(options.max_time, "--max-time") or ASSIST_MAX_TIME_S
    plan = plan_assist_here(options, config, console, run_id)
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


@in_one_sentence
def sync(options: argparse.Namespace, config: Config, profile: Profile, console: Console) -> int:
    """Deliver what earlier runs could not. Returns 1 if something is still left."""
    check_data_dir(config.data_dir)
    if options.discard is not None:
        return _discard(options.discard, config)
    count = remove_stale_folders()
    if count:
        console.detail(f"removed the files of {count} killed assist session{'s' * (count != 1)}")
    config.require_secret()
    folders = list(find_undelivered(config.data_dir))
    if options.run_id is not None:
        folders = [folder for folder in folders if folder.run_id == options.run_id]
    elif options.token is not None or options.token_file is not None:
        raise RunnerError("a token belongs to one run; give --run-id too")
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
        done = _SyncRun(
            folder,
            config.token if options.run_id is not None else "",
            build_rules(config, os.environ),
            console,
            gateway_url=config.gateway_url
            if options.gateway is None
            else parse_gateway_url(options.gateway, "--gateway"),
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
        raise RunnerError(f"run {run_id} is not in {config.data_dir}")
    if not folder.lock():
        raise RunnerError(f"run {run_id} is still running; stop it first")
    folder.remove()
    folder.close()
    if folder.path.exists():
        raise RunnerError(f"{folder.path} cannot be deleted whole; delete it by hand")
    print_out(f"{run_id}: deleted, with everything that was not delivered")
    return 0


@in_one_sentence
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


# === sync: what earlier runs could not deliver ====================================================
#
# Deliver what earlier runs could not: the journals that a crash or an outage left behind.
#
# Each goes to the gateway that it names and to no other, with the token that it holds, and only if
# the user names that gateway too: a journal may have come with the project. Of files only those
# that lie in the run's own folder are sent, and they are redacted once more. A run whose runner
# died gets the missing end. Commands that were being executed then are reported as interrupted;
# they are not executed again.

# What became of a run whose runner died and could not say it.
_RUNNER_DIED: Final = {
    "event": "finished",
    "exitCode": 137,
    "signal": None,
    "reason": "runner died",
    "childExitCode": None,
    "durationMs": None,
}
_PROGRESS_INTERVAL_S: Final = 1.0
_JOIN_TIMEOUT_S: Final = 5.0
# What a run lays down in its folder for its end: logs, and copies of artifacts.
_PLAIN_PATH: Final = re.compile(r"(?:artifacts/)?[^/\0.][^/\0]*")


def _has_not_begun(spool: Spool) -> bool:
    """Whether the runner died before the child was started."""
    is_empty = spool.totals().events == 0 and not spool.has_pending
    return is_empty and not spool.fact("was_started")


def _is_complete(spool: Spool) -> bool:
    """Whether the gateway has everything: the runner died when only the stamp was missing."""
    is_delivered = spool.fact("finished") and not spool.has_pending and spool.next_upload() is None
    return bool(is_delivered) and not (spool.unacknowledged() and spool.fact("token"))


def _is_same_gateway(one: str, other: str) -> bool:
    """Whether two addresses are of the same gateway, however they are written."""
    return _place(one) == _place(other)


def _place(url: str) -> tuple[str, str, int | None, str]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return url, "", None, ""
    return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/")


def _is_own_file(folder: RunFolder, path: str) -> bool:
    """Whether a path that a journal names is that of a regular file in the run's folder."""
    if not _PLAIN_PATH.fullmatch(path):
        return False
    try:
        of_folder = (folder.path / path).parent.lstat()
        of_file = (folder.path / path).lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(of_folder.st_mode) and stat.S_ISREG(of_file.st_mode)


class _SyncRun:
    """The delivery of one run's leftovers. Thread: main; delivery itself has the poster's."""

    def __init__(
        self,
        folder: RunFolder,
        token: str,
        rules: Rules,
        console: Console,
        *,
        gateway_url: str,
        open_client: OpenClient,
        check: Callable[[GatewayClient, str], object],
        drain_timeout_s: float,
    ) -> None:
        self._folder = folder
        self._given_token = token
        self._rules = rules
        self._console = console
        self._gateway_url = gateway_url
        self._open_client = open_client
        self._check = check
        self._drain_timeout_s = drain_timeout_s

    def deliver(self) -> str:
        """Send everything, and return what was done. Raises RunnerError when it cannot."""
        spool = Spool(self._folder.spool_path, redact=self._rules.redact)
        try:
            if _has_not_begun(spool):
                if self._folder.has_log:
                    raise RunnerError(
                        "its journal is empty, as after a power cut; what is left of its output "
                        f"is in {self._folder.path}"
                    )
                self._folder.remove()
                return "it had not begun when the runner died; it may be started"
            if _is_complete(spool):
                self._close(spool)
                return "everything had been delivered"
            gateway_url = spool.fact("gateway_url")
            token = self._given_token or spool.fact("token")
            if not gateway_url or not token:
                raise RunnerError("its journal names no gateway or no token; give --token")
            if not _is_same_gateway(gateway_url, self._gateway_url):
                raise RunnerError(
                    f"it is for {printable(self._rules.redact(gateway_url), 200)}, and the "
                    f"gateway here is {self._gateway_url}; if you know that address, `sync "
                    f"--gateway {shlex.quote(printable(self._rules.redact(gateway_url), 200))}` "
                    "sends it there"
                )
            client = self._open_client(gateway_url, self._folder.run_id, token)
            self._check(client, self._folder.run_id)
            before = spool.totals()
            self._complete(spool)
            self._look_over_files(spool)
            self._acknowledge_all(spool, client)
            self._drain(spool, client)
            self._close(spool)
            after = spool.totals()
            count = after.events - before.events
            size = shown_size(after.bytes - before.bytes)
            return f"delivered {count} event{'s' * (count != 1)} ({size}) to {gateway_url}"
        finally:
            spool.close()

    def _close(self, spool: Spool) -> None:
        spool.wipe("token")
        try:
            self._folder.mark_delivered()
        except OSError as error:
            raise RunnerError(
                f"everything is delivered, but {self._folder.path} cannot be written "
                f"({error.strerror})"
            ) from error

    def _complete(self, spool: Spool) -> None:
        """Record the end that a runner that died could not record."""
        for command in spool.unacknowledged():
            if not command.has_ended:
                reason = "interrupted: the runner died; it may have run in part"
                sentence = f"Command failed: {command.command}: {reason}"
                spool.end_command(
                    command.id,
                    error=self._rules.redact(reason),
                    notice=self._rules.redact(sentence),
                )
        self._withdraw_questions(spool)
        if not spool.has_end:
            log_name = str(spool.fact("log_name") or "")
            has_log = _is_own_file(self._folder, log_name)
            parts = file_parts(self._folder.path, log_name, log_name) if has_log else ()
            spool.record_end(_RUNNER_DIED, list(parts))

    def _withdraw_questions(self, spool: Spool) -> None:
        """Withdraw the cards of questions that can no longer be answered."""
        fact = spool.fact("questions") or {}
        if spool.is_ended or not fact.get("open"):
            return
        for question_id in fact["open"]:
            event = withdrawal(question_id, has_cards=bool(fact.get("cards")), rules=self._rules)
            spool.append(*event)
        spool.put_fact("questions", {**fact, "open": []})

    def _look_over_files(self, spool: Spool) -> None:
        """Keep only the run's own files for the upload, and redact the secrets known by now."""
        for path, part in {part.path: part for part in reversed(spool.waiting_parts())}.items():
            if not _is_own_file(self._folder, path):
                spool.recut_uploads(path, ())
                name = printable(self._rules.redact(part.name), 100)
                self._console.warn(
                    f"{self._folder.run_id}: {name} is not uploaded: it is not a file of the run"
                )
                continue
            try:
                if redact_again(self._folder.path / path, self._rules):
                    done = spool.done_parts(path)
                    first = done[0].name if done else part.name
                    number = len(done) + 1
                    parts = file_parts(
                        self._folder.path, path, first, start=part.start, number=number
                    )
                    spool.recut_uploads(path, list(parts))
            except OSError as error:
                raise RunnerError(f"{part.name} cannot be redacted ({error.strerror})") from error

    def _acknowledge_all(self, spool: Spool, client: GatewayClient) -> None:
        pacer = Pacer()
        for command in spool.unacknowledged():
            if not acknowledge(command, spool, client, pacer, sleep, ACK_IN_SYNC):
                self._console.warn(f"{self._folder.run_id}: a command could not be acknowledged")

    def _drain(self, spool: Spool, client: GatewayClient) -> None:
        problems: list[str] = []
        news: list[CertificateRefused | WorkerFailed | WorkerEnded] = []
        poster = Poster(
            client,
            spool,
            self._folder.path,
            Pacer(),
            self._rules,
            tell=problems.append,
            tell_owner=news.append,
        )
        poster.start()
        poster.finish()
        try:
            poster.join(_PROGRESS_INTERVAL_S)
            # Here a person waits, who can start it again.
            while not (news or poster.has_stalled(self._drain_timeout_s)):
                remaining = poster.describe_remaining().text
                self._console.progress(f"{self._folder.run_id}: delivering {remaining} …")
                poster.join(_PROGRESS_INTERVAL_S)
        finally:
            self._console.progress("")
            poster.give_up()
            poster.join(_JOIN_TIMEOUT_S)
        for problem in problems:
            self._console.warn(f"{self._folder.run_id}: {problem}")
        if not poster.is_done:
            error = news[0].error if news else None
            reason = str(error) if error else "the gateway does not take the rest"
            raise RunnerError(f"{reason}; {' '.join(poster.describe_remaining())} left")
