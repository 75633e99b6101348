"""Deliver what earlier runs could not: the journals that a crash or an outage left behind.

Each goes to the gateway that it names and to no other, with the token that it holds. A run whose
runner died gets the end that nobody recorded. Commands that were being executed then are reported
as interrupted; they are not executed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Final

from config import RunnerError
from journal.spool import Spool
from runner.attempts import ACK_IN_SYNC, acknowledge, sleep
from runner.console import shown_size
from runner.folder import find_undelivered
from runner.pacing import Pacer
from runner.poster import Delivery
from runner.upload import file_parts

if TYPE_CHECKING:
    from pathlib import Path

    from gateway_client import GatewayClient
    from redact import Rules
    from runner.console import Console
    from runner.folder import RunFolder
    from runner.mailbox import WorkerEnded

    OpenClient = Callable[[str, str, str], GatewayClient]  # gateway's address, run id, token

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


def count_leftovers(data_dir: Path) -> int:
    """Return how many runs, none of them alive, are not delivered whole."""
    count = 0
    for folder in find_undelivered(data_dir):
        if folder.is_accessible and folder.lock():
            count += 1
            folder.close()
    return count


def _has_not_begun(spool: Spool) -> bool:
    """Whether the runner died before the `started` marker, and so before the child was started."""
    return spool.totals().events == 0 and not spool.has_pending


def _is_complete(spool: Spool) -> bool:
    """Whether the gateway has everything: the runner died when only the stamp was missing."""
    is_delivered = spool.fact("finished") and not spool.has_pending and spool.next_upload() is None
    return bool(is_delivered) and not (spool.unacknowledged() and spool.fact("token"))


class SyncRun:
    """The delivery of one run's leftovers. Thread: main; delivery itself has the poster's."""

    def __init__(
        self,
        folder: RunFolder,
        token: str,
        rules: Rules,
        console: Console,
        *,
        open_client: OpenClient,
        check: Callable[[GatewayClient, str], None],
        drain_timeout_s: float,
    ) -> None:
        self._folder = folder
        self._given_token = token
        self._rules = rules
        self._console = console
        self._open_client = open_client
        self._check = check
        self._drain_timeout_s = drain_timeout_s

    def deliver(self) -> str:
        """Send everything, and return what was done. Raises RunnerError when it cannot."""
        spool = Spool(self._folder.spool_path)
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
            client = self._open_client(gateway_url, self._folder.run_id, token)
            self._check(client, self._folder.run_id)
            before = spool.totals()
            self._complete(spool)
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
        if spool.fact("end") is None:
            log_name = spool.fact("log_name")
            has_log = bool(log_name) and (self._folder.path / log_name).exists()
            parts = file_parts(self._folder.path, log_name, log_name) if has_log else ()
            spool.record_end(_RUNNER_DIED, parts)

    def _acknowledge_all(self, spool: Spool, client: GatewayClient) -> None:
        pacer = Pacer(None)
        for command in spool.unacknowledged():
            if not acknowledge(command, spool, client, pacer, sleep, ACK_IN_SYNC):
                self._console.warn(f"{self._folder.run_id}: a command could not be acknowledged")

    def _drain(self, spool: Spool, client: GatewayClient) -> None:
        problems: list[str] = []
        ends: list[WorkerEnded] = []
        delivery = Delivery(
            client,
            spool,
            self._folder.path,
            Pacer(None),
            self._rules,
            tell=problems.append,
            ended=ends.append,
        )
        delivery.start()
        delivery.finish()
        try:
            delivery.join(_PROGRESS_INTERVAL_S)
            while not (ends or delivery.has_stalled(self._drain_timeout_s)):
                remaining = delivery.describe_remaining().text
                self._console.progress(f"{self._folder.run_id}: delivering {remaining} …")
                delivery.join(_PROGRESS_INTERVAL_S)
        finally:
            self._console.progress("")
            delivery.give_up()
            delivery.join(_JOIN_TIMEOUT_S)
        for problem in problems:
            self._console.warn(f"{self._folder.run_id}: {problem}")
        if not delivery.is_done:
            error = ends[0].error if ends else None
            reason = str(error) if error else "the gateway does not take the rest"
            raise RunnerError(f"{reason}; {' '.join(delivery.describe_remaining())} left")
