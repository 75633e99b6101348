"""The thread that notices when a run needs somebody, ends or falls silent, and tells of it.

It tells open pages at once, and the services of CLAUDE_RUNNER_GATEWAY_NOTIFY after a moment, if
nobody has answered or looks at the run. It only reads what the gateway keeps, so that nothing of it
can delay a run: the writer's thread leaves it the ids of runs that have changed.

Each wait is told once. What it is known by is the newest event that opened it, a question or the
state `waiting`: up to which event a run was told is on disk (`Marks`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Final, NamedTuple

from gateway.notify import words
from gateway.notify.marks import Marks
from gateway.notify.services import Message, Services
from gateway.notify.words import Notice, QuietHours
from gateway.presence import SILENT_S, Heard, Looks
from gateway.serving.live import Live
from gateway.storage.records import DONE, FAILED, RUNNING
from gateway.storage.store import Store
from gateway.storage.writer import StoreClosedError
from redact import Rules

logger = logging.getLogger(__name__)

# What is answered sooner is told to nobody.
_DELAY_S: Final = 5.0
# Who has seen a wait and left it open gets the message after this time.
_SEEN_DELAY_S: Final = 60.0
# A run that succeeded sooner is no news.
_SHORT_S: Final = 60.0
# What happened before that is not told when a gateway starts.
_OLD_S: Final = 86_400.0
_ROUND_S: Final = 1.0
_MAX_ENDED: Final = 1_000
# What is under way when the gateway ends: it may have been delivered, and is not to be repeated.
_LAST_WAIT_S: Final = 1.0


class _Due(NamedTuple):
    """What is told, what is to be done when it has been delivered, since when it is so, and whether
    it still is.
    """

    notice: Notice
    settle: Callable[[], None]
    since: float
    is_open: Callable[[], bool] = lambda: True


@dataclass(eq=False)
class _Watched:
    """A run that has begun. Events up to `told` are settled, and up to `handed` on their way."""

    run_id: str
    told: int = 0
    silent_at: int = 0
    handed: int = 0
    paged: int = 0
    need: int = 0
    need_since: float = 0.0
    silent_event_id: int = 0
    is_silent: bool = False


class Notifier:
    """The thread. What is public may be called by any thread, and does not block."""

    def __init__(
        self,
        store: Store,
        live: Live,
        marks: Marks,
        looks: Looks,
        heard: Heard,
        rules: Rules,
        quiet: QuietHours | None,
    ) -> None:
        self._store = store
        self._live = live
        self._marks = marks
        self._looks = looks
        self._heard = heard
        self._rules = rules
        self._quiet = quiet
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._services = Services((), self._inbox.put)
        self._link_base = ""
        self._runs: dict[str, _Watched] = {}
        # What was due in quiet hours, by run and word, until somebody looks or they are over.
        self._held: dict[tuple[str, str], tuple[Notice, float]] = {}
        self._ended: dict[str, None] = {}
        # What quiet hours have gathered is one message, and what a start finds: nothing of them is
        # told before, and nothing that is newer with them.
        self._has_gathered = True
        self._gather_at = self._gathered_until = 0.0
        self._leads = False
        self._began_at = time.time()
        self._last_number = int(time.time() * 1_000)
        self._state: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name="gateway-notify", daemon=True)

    def use(self, addresses: Sequence[str]) -> None:
        """Take the services to tell. Raises: ServicesError. Before `start`; blocks for a second."""
        self._services = Services(addresses, self._inbox.put)

    def start(self, link_base: str) -> None:
        """Begin; `link_base` is what a link to the page begins with."""
        self._link_base = link_base
        self._state = self._make_state()
        self._thread.start()

    def close(self) -> None:
        """End. What a service has at this moment is waited for a second."""
        self._inbox.put(None)
        self._thread.join(3)
        self._services.close()

    def lead(self, *, leads: bool) -> None:
        """Begin to watch, or leave it to another gateway on the same database."""
        self._inbox.put(self._begin if leads else self._rest)
        self._leads = leads

    def run_changed(self, run_id: str) -> None:
        """Take note that a run's state or details have changed."""
        if self._leads:
            self._inbox.put(partial(self._look, run_id))

    def told_elsewhere(self, number: int) -> None:
        """Take note of a notice of another gateway."""
        self._last_number = max(self._last_number, number)

    def test(self) -> None:
        """Send a message to each service now; the state tells what became of it."""
        self._inbox.put(self._send_test)

    @property
    def state(self) -> dict[str, Any]:
        """What the page shows of the services, and up to which notice it knows all."""
        return {**self._state, "last_notice": self._last_number}

    # --- the thread ---

    def _run(self) -> None:
        ends_at = float("inf")
        while time.monotonic() < ends_at:
            try:
                pause_s = min(self._pause_s(), max(0.0, ends_at - time.monotonic()))
                task = self._inbox.get(timeout=pause_s)
            except queue.Empty:
                task = self._work
            if task is None:
                ends_at = time.monotonic() + _LAST_WAIT_S
            else:
                self._attempt(task)
            if ends_at < float("inf"):
                if not self._services.is_busy:
                    return
            elif self._inbox.empty():
                self._attempt(self._work)

    def _attempt(self, task: Callable[[], None]) -> None:
        try:
            task()
        except StoreClosedError:
            pass  # the gateway is ending
        except Exception as error:  # noqa: BLE001 - of one run; the others are watched on
            logger.warning("notifications stumbled: %s", type(error).__name__)

    def _pause_s(self) -> float:
        pause_s = self._services.next_step_s(time.monotonic())
        return min(pause_s, _ROUND_S) if self._runs or self._held else min(pause_s, 30.0)

    def _begin(self) -> None:
        """Watch what runs; what has been open or has ended since the last message is told."""
        self._has_gathered = False
        marks = self._marks.load()
        for run_id in {*marks, *self._marks.running()}:
            told, silent_at = marks.get(run_id, (0, 0))
            self._runs[run_id] = known = _Watched(run_id, told, silent_at, told)
            run = self._store.run(run_id)
            is_old = run is None or (run["last_event_at"] or 0) < time.time() - _OLD_S
            if is_old and run is not None:
                known.told = known.handed = known.silent_at = run["last_event_id"]
            known.paged = 0 if run is None else run["last_event_id"]
            if is_old and run is not None and run["status"] != RUNNING:
                self._forget(run_id)
            else:
                self._attempt(partial(self._look, run_id))
        self._gathered_until = time.monotonic()
        for known in self._runs.values():
            known.need_since = self._gathered_until
        # Pages come back meanwhile, and say what they show.
        self._gather_at = self._gathered_until + _DELAY_S

    def _rest(self) -> None:
        self._runs.clear()
        self._held.clear()

    # --- a run ---

    def _look(self, run_id: str) -> None:
        """See what a run needs."""
        run = self._store.run(run_id)
        known = self._runs.get(run_id)
        if run is None:
            self._forget(run_id)
        elif run["status"] == RUNNING:
            if known is None:
                known = self._runs[run_id] = _Watched(run_id)
                self._heard.note(run_id)
                self._save(known)
            self._see_need(run, known)
        elif run["status"] in (DONE, FAILED) and self._is_new_end(run):
            self._end(run)

    def _is_new_end(self, run: dict[str, Any]) -> bool:
        if run["id"] in self._ended:
            return False
        # Also of one that was over before it was seen to begin.
        return run["id"] in self._runs or (run["finished_at"] or 0) >= self._began_at

    def _see_need(self, run: dict[str, Any], known: _Watched) -> None:
        need, notice = self._need_of(run, known.told)
        # What is asked while something is about to be told is told with it.
        if not (max(known.told, known.handed) < known.need <= need):
            known.need_since = time.monotonic()
        known.need = need
        if notice is not None and need > known.paged:
            known.paged = need
            self._tell_pages(notice)

    def _need_of(self, run: dict[str, Any], told: int) -> tuple[int, Notice | None]:
        """Return the event that opened the newest wait, and what is told of those after `told`."""
        if run["open_questions"]:
            cards = self._store.conversation(run["id"])["open"]
            newest = max((card["event_id"] for card in cards), default=run["talk_event_id"])
            new = [card for card in cards if card["event_id"] > told]
            count = run["open_questions"] - len(cards) + len(new)
            return newest, words.asking(run, new, count) if new or not cards else None
        if run["state"] == "waiting":
            return run["state_event_id"] or 0, words.waiting(run)
        return 0, None

    def _end(self, run: dict[str, Any]) -> None:
        run_id = run["id"]
        self._runs.pop(run_id, None)
        self._heard.forget(run_id)
        self._ended[run_id] = None
        if len(self._ended) > _MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        notice = words.ended(run)
        self._tell_pages(notice)
        is_news = run["status"] == FAILED or words.lasted(run) >= _SHORT_S
        if not self._services or not is_news or self._looks.is_watched(run_id):
            self._forget(run_id)
        elif self._is_quiet() or (self._gather_at == 0 and not self._has_gathered):
            self._hold(notice)
        else:
            self._tell_together([_Due(notice, partial(self._forget, run_id), 0.0)])

    def _forget(self, run_id: str) -> None:
        self._runs.pop(run_id, None)
        if self._services:
            self._marks.drop(run_id)

    def _save(self, known: _Watched) -> None:
        # Without services nothing is told to anybody who is not here.
        if self._services and known.run_id in self._runs:
            self._marks.save(known.run_id, known.told, known.silent_at)

    # --- what is due ---

    def _work(self) -> None:
        """Hand over what is due, and let the services go on."""
        now = time.monotonic()
        is_quiet = self._is_quiet()
        due = [] if is_quiet else self._due_waits(now)
        silent = self._fallen_silent(now)
        if is_quiet:
            self._has_gathered, self._gather_at, self._gathered_until = False, 0.0, now
            for each in silent:
                self._hold(each.notice)
            silent = []
        elif not self._has_gathered and now >= self._gather_at:
            self._has_gathered = True
            self._tell_together(
                self._take_held(), [d for d in due if d.since <= self._gathered_until]
            )
            due = [each for each in due if each.since > self._gathered_until]
        for each in due:
            self._tell_together([each])
        self._tell_together(silent)  # all at once if the network was away
        self._services.step(now)
        self._tell_state()

    def _due_waits(self, now: float) -> list[_Due]:
        due: list[_Due] = []
        for known in list(self._runs.values()):
            if known.need <= max(known.told, known.handed) or not self._is_time(known, now):
                continue
            run = self._store.run(known.run_id)
            if run is None or run["status"] != RUNNING:
                continue  # it is looked at soon
            need, notice = self._need_of(run, known.told)
            if notice is not None and need > max(known.told, known.handed):
                known.handed = need
                settle = partial(self._settle_wait, known, need)
                is_open = partial(self._is_open, known)
                due.append(_Due(notice, settle, known.need_since, is_open))
        return due

    def _is_open(self, known: _Watched) -> bool:
        return known.need > 0 and known.run_id in self._runs

    def _is_time(self, known: _Watched, now: float) -> bool:
        """Whether a wait has been open for long enough, and nobody looks at it."""
        if self._looks.is_watched(known.run_id):
            return False
        looked = self._looks.last(known.run_id)
        if looked is not None and looked >= known.need_since:
            return now >= looked + _SEEN_DELAY_S
        return now >= known.need_since + _DELAY_S

    def _settle_wait(self, known: _Watched, need: int) -> None:
        known.told = max(known.told, need)
        self._save(known)

    def _fallen_silent(self, now: float) -> list[_Due]:
        fallen: list[_Due] = []
        for known in list(self._runs.values()):
            is_silent = now - self._heard.last(known.run_id) >= SILENT_S
            if is_silent == known.is_silent or self._looks.is_watched(known.run_id):
                continue
            known.is_silent = is_silent
            run = self._store.run(known.run_id)
            if run is None:
                self._forget(known.run_id)  # it was deleted
            elif not is_silent:
                self._held.pop((known.run_id, words.SILENT), None)
                known.silent_at = 0  # the next silence is another one
                self._save(known)
            elif run["status"] == RUNNING and run["last_event_id"] > known.silent_at:
                known.silent_event_id = run["last_event_id"]
                notice = words.silent(run, SILENT_S)
                self._tell_pages(notice)
                fallen.append(_Due(notice, partial(self._settle_silence, known), now))
        return fallen

    def _settle_silence(self, known: _Watched) -> None:
        known.silent_at = known.silent_event_id
        self._save(known)

    def _hold(self, notice: Notice) -> None:
        self._held[notice.run_id, notice.word] = notice, time.monotonic()

    def _take_held(self) -> list[_Due]:
        """Return what has ended unseen, and what is still silent."""
        due: list[_Due] = []
        held, self._held = self._held, {}
        for (run_id, word), (notice, at) in held.items():
            known = self._runs.get(run_id)
            is_seen = (self._looks.last(run_id) or 0.0) >= at
            if word != words.SILENT and is_seen:
                self._forget(run_id)
            elif word != words.SILENT:
                due.append(_Due(notice, partial(self._forget, run_id), at))
            elif known is not None and known.is_silent and not is_seen:
                due.append(_Due(notice, partial(self._settle_silence, known), at))
        return due

    # --- telling ---

    def _is_quiet(self) -> bool:
        return self._quiet is not None and self._quiet.include(time.time())

    def _tell_together(self, *groups: list[_Due]) -> None:
        """Hand one message to the services."""
        due = [each for group in groups for each in group]
        notices = [each.notice for each in due]

        def settle() -> None:
            for each in due:
                self._attempt(each.settle)

        if not due:
            return
        if not self._services:
            settle()
            return
        if len(due) == 1:
            title, body, page = notices[0].title, notices[0].what, f"/runs/{notices[0].run_id}"
        else:
            (title, body), page = words.digest(notices), "/"
        link = f"{self._link_base}{page}"
        self._services.put(
            Message(
                self._rules.redact(title),
                self._rules.redact(body),
                link,
                settle,
                lambda: any(each.is_open() for each in due),
            )
        )

    def _tell_pages(self, notice: Notice) -> None:
        if self._looks.is_watched(notice.run_id):
            return
        run = self._store.run(notice.run_id)
        if run is None:
            return  # it was deleted meanwhile
        self._last_number = max(self._last_number + 1, int(time.time() * 1_000))
        self._live.tell_notice(
            self._last_number,
            {
                "number": self._last_number,
                "run_id": notice.run_id,
                "title": self._rules.redact(notice.title),
                "text": self._rules.redact(notice.what),
            },
            (run["owner"], run["working_dir"]),
        )

    def _send_test(self) -> None:
        self._services.test(
            "claude-runner: a test",
            "Messages of this gateway look like this one.",
            f"{self._link_base}/",
            time.monotonic(),
        )

    def _make_state(self) -> dict[str, Any]:
        quiet = None if self._quiet is None else str(self._quiet)
        return {"services": self._services.to_json(), "quiet_hours": quiet}

    def _tell_state(self) -> None:
        state = self._make_state()
        if state != self._state:
            self._state = state
            self._live.tell_everybody("notifications", state)
