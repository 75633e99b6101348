"""What notifications say, and the hours in which none come. Pure."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from gateway.storage.records import DONE, name_of

SILENT: Final = "Silent"
_MAX_NAME: Final = 80
_MAX_WHAT: Final = 200
# Of several runs that are told of at once; the page has the others.
_MAX_LISTED: Final = 10
# What says best what a tool is used for; the rest of a card is for the page.
_TELLING: Final = ("command", "file_path", "notebook_path", "path", "url", "query", "pattern")
_ENDINGS: Final = {"stopped": "Stopped", "halted": "Halted", "interrupted": "Interrupted"}
# Formatting characters turn text around, or are not seen at all.
_INVISIBLE: Final = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_RANGE: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_BETWEEN_ADDRESSES: Final = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_BETWEEN_PARTS: Final = re.compile(r"[/:@?&=,]+")
# A shorter part of an address is a name, such as a topic's: it is in many a run's output.
_MIN_SECRET_PART: Final = 16


class QuietHours(NamedTuple):
    """From one minute of the day to another one, which may be on the next day. Local time."""

    first: int
    end: int

    def __str__(self) -> str:
        return "-".join(f"{each // 60:02}:{each % 60:02}" for each in self)

    def include(self, moment: float) -> bool:
        """Whether a Unix time is in them."""
        local = time.localtime(moment)
        minute = local.tm_hour * 60 + local.tm_min
        if self.first < self.end:
            return self.first <= minute < self.end
        return minute >= self.first or minute < self.end


def parse_quiet_hours(text: str) -> QuietHours:
    """Return what `22:00-07:00` means. Raises: ValueError."""
    match = _RANGE.fullmatch(re.sub(r"\s*-\s*", "-", text.strip()))
    if match is None:
        raise ValueError(text)
    hours, minutes, end_hours, end_minutes = map(int, match.groups())
    quiet = QuietHours(hours * 60 + minutes, end_hours * 60 + end_minutes)
    if quiet.first == quiet.end:
        raise ValueError(text)
    return quiet


def split_addresses(text: str) -> tuple[str, ...]:
    """Return the addresses of a setting. A comma inside one, as of two receivers, is part of it."""
    parts = (part.strip().rstrip(",") for part in _BETWEEN_ADDRESSES.split(text.strip(" \t\n,")))
    return tuple(part for part in parts if part)


def secrets_of(addresses: Sequence[str]) -> set[str]:
    """Return what of these addresses must be shown nowhere."""
    secrets: set[str] = set(addresses)
    for address in addresses:
        rest = address.partition("://")[2]
        parts = [rest, *_BETWEEN_PARTS.split(rest)]
        # A name with a dot is a host's, and not secret.
        secrets |= {part for part in parts[1:] if len(part) >= _MIN_SECRET_PART and "." not in part}
        secrets |= {rest} if len(rest) >= _MIN_SECRET_PART else set()
    return secrets


class Notice(NamedTuple):
    """What is told of one run."""

    run_id: str
    name: str
    word: str
    what: str

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.word}: {self.name}"


def asking(run: dict[str, Any], cards: Sequence[dict[str, Any]], count: int) -> Notice:
    """Return what is told of a run with open questions; `count` is how many there are."""
    first = _asked(cards[0]) if cards else ""
    what = first if count == 1 else f"{count} questions; the first: {first}"
    return _notice(run, "Asks you", what)


def waiting(run: dict[str, Any]) -> Notice:
    """Return what is told of a run that waits without a question."""
    what = (
        "It has ended its turn, and waits for your message."
        if run["listens"]
        else "It waits for an answer, or for what to do next."
    )
    return _notice(run, "Waits for you", what)


def ended(run: dict[str, Any]) -> Notice:
    """Return what is told of a run that is over."""
    word = "Finished" if run["status"] == DONE else "Failed"
    lasted_s = lasted(run)
    after = f"After {_span(lasted_s)}" if run["started_at"] else ""
    code = f"exit code {run['exit_code']}" if run["exit_code"] else ""
    what = ", ".join(filter(None, (after, code)))
    return _notice(run, _ENDINGS.get(run["reason"] or "", word), f"{what[:1].upper()}{what[1:]}.")


def silent(run: dict[str, Any], after_s: float) -> Notice:
    """Return what is told of a run whose runner is not heard any more."""
    what = f"Its runner has not been heard of for {_span(after_s)}, and the run had not ended."
    return _notice(run, SILENT, what)


def digest(notices: Sequence[Notice]) -> tuple[str, str]:
    """Return title and text of one message about several runs."""
    lines = [f"{notice.title}. {notice.what}" for notice in notices[:_MAX_LISTED]]
    if len(notices) > _MAX_LISTED:
        lines.append(f"and {len(notices) - _MAX_LISTED} more")
    words = {notice.word for notice in notices}
    title = f"{len(notices)} runs: {words.pop().lower()}" if len(words) == 1 else ""
    return title or f"{len(notices)} runs have news", "\n".join(lines)


def lasted(run: dict[str, Any]) -> float:
    """Return for how many seconds a run went on that is over."""
    began, finished = run["started_at"], run["finished_at"]
    return max(0.0, finished - began) if began and finished else 0.0


def _notice(run: dict[str, Any], word: str, what: str) -> Notice:
    return Notice(run["id"], _name(run), word, _line(what, _MAX_WHAT))


def _name(run: dict[str, Any]) -> str:
    """Return what the page calls it, in a line."""
    return _line(name_of(run), _MAX_NAME)


def _asked(card: dict[str, Any]) -> str:
    if card["kind"] == "plan":
        return "Its plan is ready."
    if card["kind"] == "question" and card["questions"]:
        return str(card["questions"][0]["question"])
    fields = {field["name"]: field["text"] for field in card["fields"]}
    told = [fields[name] for name in _TELLING if fields.get(name)]
    return " ".join(filter(None, (card["tool"] or "A tool", told[0] if told else card["title"])))


def _line(text: str, limit: int) -> str:
    """Return a text in one line, without what is not seen, and cut if it is long."""
    # Many times the limit is enough to find it, however long the text is.
    kept = (
        " " if each.isspace() else each
        for each in text[: limit * 20]
        if each.isspace() or unicodedata.category(each) not in _INVISIBLE
    )
    line = " ".join("".join(kept).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
