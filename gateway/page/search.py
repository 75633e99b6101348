"""Looking through a run's output, line by line, and where each line is. Pure.

A line is named by the event in which it begins, and by how many line ends stand before it there.
So its name does not depend on where the reading began. An answer that is written piece by piece
comes in many events, and its words are cut anywhere: a line is looked at when it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Callable, Final, NamedTuple

from gateway.storage.records import Event

MAX_WANTED_CHARACTERS: Final = 200
_OUTPUT: Final = ("stdout", "stderr")
_BESIDE: Final = ("info", "error")
# A line that is longer is looked at in parts of this size.
_MAX_LINE_CHARACTERS: Final = 65_536
_EXCERPT_BEFORE: Final = 60
_EXCERPT: Final = 240
# Of the ids of all runs: what the database looks through at once.
_WINDOW: Final = 200_000
# The sign of `kinds.text_layout` for something that went wrong.
PROBLEM: Final = "▲"
_PROBLEM: Final = re.compile(rf"(?:┊ )?{PROBLEM}(?: (?=(.))|$)")


class Place(NamedTuple):
    """The event in which a line begins, and the number of line ends before it there."""

    event: int
    line: int


class Line(NamedTuple):
    """A line of a run, and the type of its event."""

    place: Place
    type: str
    text: str


class Cursor(NamedTuple):
    """Where to go on: a place in each stream, which are cut apart; and the last line's type."""

    stdout: Place
    stderr: Place
    beside: Place
    type: str = ""

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Return what `str` has written, or the same place in all streams if it names one alone.

        Raises: ValueError
        """
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ValueError("no cursor")
        places = [Place(*map(int, each.split("."))) for each in found[1].split("-")]
        stdout, stderr, beside = places if len(places) > 1 else places * 3
        return cls(stdout, stderr, beside, found[2] or "")

    def __str__(self) -> str:
        places = "-".join(f"{place.event}.{place.line}" for place in self[:3])
        return f"{places}-{self.type}" if self.type else places


BEGINNING: Final = Cursor(Place(0, 0), Place(0, 0), Place(0, 0))
_PLACE: Final = r"[0-9]{1,16}\.[0-9]{1,9}"
_CURSOR: Final = re.compile(rf"({_PLACE}(?:-{_PLACE}-{_PLACE})?)(?:-([a-z]{{1,10}}))?")

Finder = Callable[[Line], "tuple[int, int] | None"]


def find_text(wanted: str) -> Finder:
    """Return what finds a text, whatever the case of its letters."""
    pattern = re.compile(re.escape(wanted), re.IGNORECASE)

    def find(line: Line) -> tuple[int, int] | None:
        found = pattern.search(line.text)
        return found.span() if found else None

    return find


def certain_part(wanted: str) -> str:
    """Return the longest part of a search that each of its hits contains, apart from the case of
    ASCII letters: the database can ignore the case of these alone.
    """
    parts = re.split(r"[^\x01-\x7f]+", wanted) if wanted.lower() != wanted.upper() else [wanted]
    return max(parts, key=len)


def find_problems(before: str = "") -> Finder:
    """Return what finds failures, errors of the runner, and the first line of each error output.

    `before` is the type of the line before the first one.
    """

    def find(line: Line) -> tuple[int, int] | None:
        nonlocal before
        is_next = line.type == before
        before = line.type
        if line.type == "stdout":
            found = _PROBLEM.match(line.text)
            return found.span() if found else None
        return (0, 0) if line.type == "error" or (line.type == "stderr" and not is_next) else None

    return find


class Lines:
    """Events in, the lines out that they complete."""

    def __init__(self, begin: Cursor) -> None:
        self._begins = {"stdout": begin.stdout, "stderr": begin.stderr}
        self._begins.update(dict.fromkeys(_BESIDE, begin.beside))
        self._open: dict[str, tuple[Place, str]] = {}
        self._type = begin.type
        # The first place that was not looked at yet, and the stream that it is in.
        self._reached = (min(begin[:3]), "")

    def take(self, event: Event) -> Iterator[Line]:
        """Yield the lines that this event completes."""
        kind = event.type
        begin = self._begins.get(kind)
        if begin is not None and event.id >= begin.event:
            parts = event.data.split("\n") if kind in _OUTPUT else [event.data]
            skipped = begin.line if event.id == begin.event else 0
            for number, part in enumerate(parts[skipped:], skipped):
                place, text = self._open.pop(kind, (Place(event.id, number), ""))
                text += part
                is_last = number == len(parts) - 1 and kind in _OUTPUT
                if is_last and len(text) <= _MAX_LINE_CHARACTERS:
                    if text:
                        self._open[kind] = (place, text)
                    continue
                self._reached = (Place(event.id, number + 1), kind)
                self._type = kind
                yield Line(place, kind, text)
        self._reached = (Place(event.id + 1, 0), "")

    def skip_to(self, event: int) -> None:
        """Take note that no event up to this one has anything to look at."""
        self._reached = max(self._reached, (Place(event + 1, 0), ""))

    def rest(self) -> Iterator[Line]:
        """Yield the lines that have no end yet."""
        for kind, (place, text) in sorted(self._open.items(), key=lambda item: item[1][0]):
            yield Line(place, kind, text)

    @property
    def cursor(self) -> Cursor:
        """Where to go on, so that no line is cut in two, or looked at twice."""
        place, inside = self._reached
        following = Place(place.event + 1, 0) if inside else place

        def begin_of(kind: str) -> Place:
            if kind in self._open:
                return self._open[kind][0]
            return max(place if kind == inside else following, self._begins[kind])

        return Cursor(begin_of("stdout"), begin_of("stderr"), following, self._type)


# Called with an event's id. Returns the next events to look through, ascending, and the id up to
# which there are no others; None at the end of the run.
Step = Callable[[int], "tuple[list[Event], int] | None"]


def every(page_after: Callable[[int], list[Event]]) -> Step:
    """Return what takes all events."""

    def step(after: int) -> tuple[list[Event], int] | None:
        page = page_after(after)
        return (page, page[-1].id) if page else None

    return step


class Promising:
    """Takes the events that have a certain text, and those that are parts of a line.

    The database passes over the others in a fiftieth of the time. Where these are most events, all
    are taken.
    """

    def __init__(
        self,
        with_text: Callable[[int, int], list[Event] | None],
        next_of: Callable[[int, str], Event | None],
        page_after: Callable[[int], list[Event]],
        last: int,
        window: int = _WINDOW,
    ) -> None:
        """`with_text(after, until)` returns the events, or None if they are too many; `next_of` the
        event after one in its stream. `last` is the last event of the run.
        """
        self._window = window
        self._with_text = with_text
        self._next_of = next_of
        self._every = every(page_after)
        self._last = last
        # By stream: its last event, if that ended no line, and what follows it there.
        self._open: dict[str, int] = {}
        self._following: dict[str, Event | None] = {}

    def __call__(self, after: int) -> tuple[list[Event], int] | None:
        """Return a step; see `Step`."""
        if after >= self._last:
            return None
        until = min(after + self._window, self._last)
        found = self._with_text(after, until)
        if found is not None:
            return list(self._completed(found, until)), until
        step = self._every(after)
        for event in step[0] if step else []:
            self._note(event)
        return step

    def _completed(self, found: list[Event], until: int) -> Iterator[Event]:
        """Yield these events, and between them those that end what others have begun."""
        for event in found:
            yield from self._endings(event.id - 1)
            self._note(event)
            yield event
        yield from self._endings(until)

    def _endings(self, until: int) -> Iterator[Event]:
        for kind, last in self._open.items():
            if kind not in self._following:
                self._following[kind] = self._next_of(last, kind)
        endings = [event for event in self._following.values() if event and event.id <= until]
        for event in sorted(endings, key=lambda each: each.id):
            self._note(event)
            yield event

    def _note(self, event: Event) -> None:
        if event.type not in _OUTPUT:
            return
        self._following.pop(event.type, None)
        self._open.pop(event.type, None)
        if not event.data.endswith("\n"):
            self._open[event.type] = event.id


def look_through(
    step_after: Step,
    find: Finder,
    begin: Cursor,
    limit: int,
    is_time_over: Callable[[], bool],
) -> tuple[list[dict[str, Any]], Cursor | None]:
    """Return so many hits at most, and where to go on; None at the end of the run.

    When the time is over it returns what it has, but not before it has come further than `begin`.
    """
    lines = Lines(begin)
    hits: list[dict[str, Any]] = []
    reached = min(begin[:3]).event - 1
    while step := step_after(reached):
        events, reached = step
        for line in (line for event in events for line in lines.take(event)):
            found = find(line)
            if found is not None:
                hits.append(_hit(line, *found))
                if len(hits) >= limit:
                    return hits, lines.cursor
        lines.skip_to(reached)
        if is_time_over() and lines.cursor[:3] > begin[:3]:
            return hits, lines.cursor
    for line in lines.rest():
        found = find(line)
        if found is not None:
            hits.append(_hit(line, *found))
    return hits, None


def _hit(line: Line, start: int, end: int) -> dict[str, Any]:
    begin = max(0, start - _EXCERPT_BEFORE)
    return {
        "event": line.place.event,
        "line": line.place.line,
        "type": line.type,
        "text": line.text[begin : begin + _EXCERPT],
        "start": start - begin,
        "end": min(end - begin, _EXCERPT),
    }
