"""What has happened, told to all who watch: here by the writer, elsewhere by the other gateways."""

from __future__ import annotations

import time
from typing import Any, Callable

from gateway.access.login import Login
from gateway.housekeeping import Housekeeping
from gateway.listing.text_index import TextIndex
from gateway.notify.notifier import Notifier
from gateway.observing.metrics import Metrics
from gateway.presence import Heard, Looks
from gateway.serving.live import ALL_RUNS, About, Live
from gateway.storage.records import Event
from gateway.storage.store import Store
from gateway.storage.verdicts import Verdicts

# How often other gateways are told which runners were heard of, and of how many at once.
_HEARD_S = 10.0
_HEARD_AT_ONCE = 200


class Notices:
    """Tells the streams what the writer has stored. Runs in the writer's thread."""

    def __init__(
        self,
        store: Store,
        live: Live,
        notifier: Notifier,
        index: TextIndex,
        metrics: Metrics | None,
    ) -> None:
        self._store = store
        self._live = live
        self._notifier = notifier
        self._index = index
        self._metrics = metrics

    def events_stored(self, run_id: str, previous_id: int, stored: list[Event]) -> None:
        """Tell of new events."""
        if self._metrics is not None:
            self._metrics.stored(event.data for event in stored)
        self._live.events_stored(run_id, previous_id, stored)
        self._index.note(run_id)

    def run_changed(self, run_id: str) -> None:
        """Tell that a run has changed, here and elsewhere."""
        self.show_run(run_id)
        if self._live.others is not None:
            self._live.others.tell("run", run=run_id)

    def show_run(self, run_id: str) -> None:
        """Tell who is here that a run has changed."""
        self._notifier.run_changed(run_id)
        if not (self._live.has_viewers(run_id) or self._live.has_viewers(ALL_RUNS)):
            return
        run = self._store.run(run_id)
        if run is not None:
            self._live.tell_here(run_id, "run", run)
            self._live.tell_here(ALL_RUNS, "run", run)


class News:
    """Takes what other gateways on the same database tell. Runs in the relay's thread."""

    def __init__(
        self,
        store: Store,
        live: Live,
        notices: Notices,
        index: TextIndex,
        notifier: Notifier,
        housekeeping: Housekeeping,
        verdicts: Verdicts,
        heard: Heard,
        looks: Looks,
        login: Login,
        forget: Callable[[list[str]], None],
    ) -> None:
        self._forget = forget
        self._store = store
        self._live = live
        self._login = login
        self._notices = notices
        self._index = index
        self._notifier = notifier
        self._housekeeping = housekeeping
        self._verdicts = verdicts
        self._heard = heard
        self._looks = looks
        self._heard_told_at = time.monotonic()
        self._takers: dict[str, Callable[..., None]] = {
            "events": self._take_events,
            "run": self._take_run,
            "queued": self._take_queued,
            "news": self._take_news,
            "everybody": self._take_everybody,
            "notice": self._take_notice,
            "people": self._take_people,
            "look": self._take_look,
            "heard": self._take_heard,
            "removed": self._take_removed,
            "token": self._take_token,
            "forgotten": self._take_forgotten,
        }

    def take(self, news: dict[str, Any]) -> None:
        """Take one piece of news. A newer gateway may tell more than is known here."""
        taker = self._takers.get(news.pop("kind"))
        if taker is not None:
            taker(**news)

    def _take_events(self, run: str, last: int) -> None:
        self._live.events_elsewhere(run, last)
        self._index.note(run)

    def _take_run(self, run: str) -> None:
        self._notices.show_run(run)

    def _take_queued(self, topic: str) -> None:
        self._live.wake_polls(topic)

    def _take_news(
        self,
        topic: str,
        name: str,
        id: str = "",
        content: dict[str, Any] | None = None,
        about: list[str | None] | None = None,
    ) -> None:
        if self._live.has_viewers(topic):
            read = {"run": self._store.run, "command": self._store.command}.get(name)
            found = content if read is None else read(id)
            if found is not None:
                self._live.tell_here(topic, name, found, _about(about))

    def _take_everybody(self, name: str, content: dict[str, Any]) -> None:
        self._live.tell_everybody(name, content, is_here=True)

    def _take_notice(
        self, number: int, content: dict[str, Any], about: list[str | None] | None = None
    ) -> None:
        self._notifier.told_elsewhere(number)
        self._live.tell_notice(number, content, _about(about) or (None, None), is_here=True)

    def _take_people(self) -> None:
        self._login.forget_believed()
        self._live.ask_again()

    def _take_look(self, run: str, page: str, *, visible: bool) -> None:
        self._looks.note_elsewhere(run, page, is_visible=visible)

    def _take_heard(self, runs: list[str]) -> None:
        for run_id in runs:
            self._heard.note_elsewhere(run_id)

    def _tell_heard(self) -> None:
        """Tell the others which runners were heard of here."""
        if self._live.others is None or time.monotonic() < self._heard_told_at + _HEARD_S:
            return
        self._heard_told_at = time.monotonic()
        runs = self._heard.news()
        for start in range(0, len(runs), _HEARD_AT_ONCE):
            self._live.others.tell("heard", runs=runs[start : start + _HEARD_AT_ONCE])

    def _take_removed(self) -> None:
        self._housekeeping.wake()

    def _take_token(self, run: str) -> None:
        self._store.forget_token_here(run)

    def _take_forgotten(self, runs: list[str]) -> None:
        self._forget(runs)

    def compare(self) -> None:
        """See in the database whether there is news that was not told."""
        self._tell_heard()
        if self._login.is_news():
            self._take_people()
        known, waiting = self._live.watched()
        for run_id, last_id in self._store.last_event_ids(known):
            if last_id > known[run_id]:
                self._live.events_elsewhere(run_id, last_id)
                self._notices.show_run(run_id)
        for topic in self._store.topics_with_work(waiting):
            self._live.wake_polls(topic)

    def lost(self) -> None:
        """Believe nothing that is remembered, and let browsers read anew: news may be lost."""
        self._login.forget_believed()
        self._store.forget_tokens()
        self._live.drop_viewers()

    def lead(self, *, leads: bool) -> None:
        """Begin with the chores, or leave them to another gateway."""
        self._index.lead(leads=leads)
        self._housekeeping.lead(leads=leads)
        self._notifier.lead(leads=leads)
        self._verdicts.lead(leads=leads)


def _about(told: list[str | None] | None) -> About | None:
    return None if told is None else (told[0], told[1])
