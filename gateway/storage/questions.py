"""What a run asks, what waits to be read by it, and what a person answers. Pure.

Of each run the gateway keeps which events hold an open question or a waiting message: a `Talk`, by
the numbers of those events, in the run's details. What they say is read from the events when
somebody looks. So open cards are there after a restart, however much the run has printed since.

A run controls its markers. What is of the wrong type is left out, what is too much is cut, and of
what was cut nothing can be allowed.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, Final, NamedTuple

# A run that asks more at once has lost its way; our runner opens no more either.
MAX_OPEN: Final = 100
_MAX_CLOSED: Final = 10
MAX_WAITING: Final = 100
# So many are shown at once, and so much of their data; the rest comes when some are answered.
MAX_SHOWN: Final = 20
MAX_SHOWN_CHARACTERS: Final = 1_000_000
# Of one question: more than our runner shows of any.
_MAX_CARD_CHARACTERS: Final = 150_000
_MAX_LINE: Final = 1_000
_MAX_SUMMARY: Final = 200
_MAX_LIST: Final = 50
_MAX_SCOPES: Final = 10
_MAX_MODES: Final = 10
# Marks on one letter: a browser that draws a thousand of them does nothing else.
_MAX_MARKS: Final = 16
_MARKS: Final = ("Mn", "Me", "Cf")
# Of a person's own words; the runner takes no more.
MAX_WORDS: Final = 10_000

ANSWER: Final = "__ANSWER__:"
MODE: Final = "__MODE__:"
TAKE_BACK: Final = "__TAKE_BACK__:"

_KINDS: Final = ("permission", "question", "plan")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,50}")
_CODE: Final = re.compile(r"[A-Za-z0-9]{1,10}")
# What the runner takes as an answer and never as a message, if there is such a code.
_TYPED: Final = re.compile(r"\s*(allow|deny|answer)\s+([a-z0-9]{4,6})(?![a-z0-9])", re.IGNORECASE)
# What names best what a tool is used for, in this order.
_TELLING: Final = ("command", "file_path", "notebook_path", "path", "url", "query", "pattern")

# What the marker `started` says about talking with the run, by the names of the API.
_STARTED: Final = {"listens": "listens", "remoteAnswers": "remote_answers", "stays": "stays"}
NO_TALK: Final[dict[str, Any]] = {
    "listens": False,
    "remote_answers": False,
    "stays": False,
    "modes": [],
    "talk": None,
}


# Events that tell of a talk, by their ids: the data of each, and its time.
Told = dict[int, tuple[str, float]]


class AnswerError(Exception):
    """An answer that is not passed on; the message is one plain sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Talk(NamedTuple):
    """Which events hold what is open, each behind its id, oldest first.

    `closed` has the ids of the last questions that were, with the events that asked and that closed
    them. `changed_by` is the last event that changed any of this.
    """

    open: list[list[Any]]
    closed: list[list[Any]]
    waiting: list[list[Any]]
    changed_by: int

    @classmethod
    def of(cls, kept: Any) -> Talk:
        """Return what `to_json` has made, or an empty one."""
        return cls(*kept) if kept else cls([], [], [], 0)

    def only(self, question_id: str) -> Talk:
        """Return what is known of one question."""
        return Talk(
            [each for each in self.open if each[0] == question_id],
            [each for each in self.closed if each[0] == question_id],
            [],
            self.changed_by,
        )

    @property
    def event_ids(self) -> set[int]:
        """The events that are needed to show it."""
        ids = {event_id for _, event_id in [*self.open, *self.waiting]}
        return ids.union(*(each[1:] for each in self.closed))


def take_started(marker: dict[str, Any], details: dict[str, Any]) -> None:
    """Note what `started` says about talking with the run."""
    for name, ours in _STARTED.items():
        details[ours] = marker.get(name) is True
    modes = marker.get("modes")
    known = modes if isinstance(modes, list) else []
    details["modes"] = [each for each in known[:_MAX_MODES] if _is_id(each)]


def take_marker(marker: dict[str, Any], event_id: int, details: dict[str, Any]) -> None:
    """Note what a marker opens or closes."""
    before = Talk.of(details["talk"])
    talk = _after(before, marker, event_id)
    if talk is not before:
        details["talk"] = list(talk)


def _after(talk: Talk, marker: dict[str, Any], event_id: int) -> Talk:
    kind, its_id = marker.get("event"), marker.get("id")
    if kind == "finished":
        # Nobody waits for an answer any more, whatever the runner had no time to say.
        if not talk.open and not talk.waiting:
            return talk
        closed = [*talk.closed, *([*each, event_id] for each in talk.open)]
        return Talk([], closed[-_MAX_CLOSED:], [], event_id)
    if not _is_id(its_id):
        return talk
    if kind == "asked" and len(talk.open) < MAX_OPEN and _is_question(marker):
        if its_id in _ids(talk.open):
            return talk
        return talk._replace(open=[*talk.open, [its_id, event_id]], changed_by=event_id)
    if kind in ("answered", "withdrawn") and its_id in _ids(talk.open):
        closed = [[*each, event_id] for each in talk.open if each[0] == its_id]
        return talk._replace(
            open=[each for each in talk.open if each[0] != its_id],
            closed=[*talk.closed, *closed][-_MAX_CLOSED:],
            changed_by=event_id,
        )
    if kind == "queued" and len(talk.waiting) < MAX_WAITING and its_id not in _ids(talk.waiting):
        return talk._replace(waiting=[*talk.waiting, [its_id, event_id]], changed_by=event_id)
    if kind in ("taken", "taken back") and its_id in _ids(talk.waiting):
        waiting = [each for each in talk.waiting if each[0] != its_id]
        return talk._replace(waiting=waiting, changed_by=event_id)
    return talk


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_question(marker: dict[str, Any]) -> bool:
    digest = marker.get("digest")
    is_named = isinstance(digest, str) and 0 < len(digest) <= _MAX_SUMMARY
    return is_named and marker.get("kind") in _KINDS


def _ids(entries: list[list[Any]]) -> list[str]:
    return [each[0] for each in entries]


def summary_of(talk: Talk) -> dict[str, int]:
    """Return what the list of runs and the news about a run say of it."""
    return {
        "open_questions": len(talk.open),
        "waiting_messages": len(talk.waiting),
        "talk_event_id": talk.changed_by,
    }


# --- how it is shown ------------------------------------------------------------------------------


def show(talk: Talk, events: Told) -> dict[str, Any]:
    """Return it as the API shows it; `events` has the data and the time of its events."""
    cards: list[dict[str, Any]] = []
    size = 0
    for _, event_id in talk.open:
        size += len(events.get(event_id, ("", 0))[0])
        if cards and (len(cards) == MAX_SHOWN or size > MAX_SHOWN_CHARACTERS):
            break
        card = _card(event_id, events)
        if card is not None:
            cards.append(card)
    closed = [_closed(asked_by, by, events) for _, asked_by, by in talk.closed]
    return {
        "event_id": talk.changed_by,
        "open": cards,
        "more": len(talk.open) - len(cards),
        "closed": [each for each in closed if each is not None],
        "waiting": [_message(its_id, by, events) for its_id, by in talk.waiting],
    }


def find_card(talk: Talk, question_id: str, events: Told) -> dict[str, Any] | None:
    """Return the card of an open question. Raises: AnswerError, which says what became of it."""
    for its_id, event_id in talk.open:
        if its_id == question_id:
            return _card(event_id, events)
    for its_id, asked_by, closed_by in reversed(talk.closed):
        if its_id == question_id:
            raise AnswerError(409, _how_closed(_closed(asked_by, closed_by, events)))
    raise AnswerError(409, "This question is not open.")


def _how_closed(closed: dict[str, Any] | None) -> str:
    if closed is None or closed["decision"] is None:
        return "Too late: the question was withdrawn."
    return f"Too late: it was answered already, by the {closed['by'] or 'runner'}."


class _Room:
    """What may still be shown of a card. `is_cut` once something did not fit."""

    def __init__(self) -> None:
        self._left = _MAX_CARD_CHARACTERS
        self.is_cut = False

    def text(self, value: Any, limit: int = _MAX_CARD_CHARACTERS) -> str:
        """Return a value as text that fits."""
        if value is None:
            return ""
        text = value if isinstance(value, str) else _json_of(value)
        limit = min(limit, self._left)
        if len(text) > limit:
            self.is_cut = True
            text = f"{text[:limit]}…"
        # The page leaves out some of them, and then not all of it is shown.
        self.is_cut = self.is_cut or _has_heaped_marks(text)
        self._left -= min(len(text), self._left)
        return text

    def some(self, value: Any, limit: int) -> list[Any]:
        """Return the members of a list that fit."""
        known = value if isinstance(value, list) else []
        self.is_cut = self.is_cut or len(known) > limit
        return known[:limit]


def _has_heaped_marks(text: str) -> bool:
    if text.isascii():
        return False
    marks = 0
    for character in text:
        is_mark = unicodedata.category(character) in _MARKS or "\u1160" <= character <= "\u11ff"
        marks = marks + 1 if is_mark else 0
        if marks > _MAX_MARKS:
            return True
    return False


def _json_of(value: Any) -> str:
    # Not indented: of what is nested deep that would be a thousand times as long.
    return json.dumps(value, ensure_ascii=False)


def _marker_of(event_id: int, events: Told) -> dict[str, Any] | None:
    if event_id not in events:
        return None
    try:
        marker = json.loads(events[event_id][0])
    except (ValueError, RecursionError):
        return None
    return marker if isinstance(marker, dict) else None


def _card(event_id: int, events: Told) -> dict[str, Any] | None:
    marker = _marker_of(event_id, events)
    if marker is None or not _is_question(marker):
        return None
    room = _Room()
    kind = marker["kind"]
    choices = [_choice(each, room) for each in room.some(marker.get("questions"), _MAX_LIST)]
    code = marker.get("code")
    scopes = marker.get("scopes")
    card = {
        "id": marker["id"],
        "event_id": event_id,
        "asked_at": events[event_id][1],
        "code": code if isinstance(code, str) and _CODE.fullmatch(code) else "",
        "digest": marker["digest"],
        "kind": kind,
        "tool": room.text(marker.get("tool"), _MAX_SUMMARY),
        "title": room.text(marker.get("title"), _MAX_LINE),
        "agent": room.text(marker.get("agent"), _MAX_SUMMARY),
        "reason": room.text(marker.get("reason"), 10 * _MAX_LINE),
        "plan": room.text(marker.get("plan")),
        "diff": room.text(marker.get("diff")),
        "fields": _fields(marker.get("input"), room),
        "questions": choices if kind == "question" else [],
        "input_characters": _count(marker.get("inputChars")),
        "hidden": marker.get("hidden") is True,
        "defaults_to_no": marker.get("defaultsToNo") is True,
        "until": _moment(marker.get("until")),
        "scopes": [
            {"id": each["id"], "label": each["label"]}
            for each in (scopes if isinstance(scopes, list) else [])[:_MAX_SCOPES]
            if _is_scope(each)
        ],
    }
    card["whole"] = marker.get("whole") is not False and not room.is_cut
    return card


def _fields(given: Any, room: _Room) -> list[dict[str, str]]:
    """Return what a tool is called with, by name; one without a name is all of it."""
    if not isinstance(given, dict):
        return [] if given is None else [{"name": "", "text": room.text(given)}]
    named = room.some(list(given.items()), _MAX_LIST)
    return [
        {"name": room.text(name, _MAX_SUMMARY), "text": room.text(value)} for name, value in named
    ]


def _choice(asked: Any, room: _Room) -> dict[str, Any]:
    fields = asked if isinstance(asked, dict) else {}
    return {
        "question": room.text(fields.get("question"), 10 * _MAX_LINE),
        "header": room.text(fields.get("header"), _MAX_SUMMARY),
        "multiple": fields.get("multiSelect") is True,
        # One of a wrong type keeps its place: options are answered by their numbers.
        "options": [
            {
                "label": room.text(option.get("label"), _MAX_LINE),
                "description": room.text(option.get("description"), 10 * _MAX_LINE),
            }
            for option in (
                each if isinstance(each, dict) else {}
                for each in room.some(fields.get("options"), _MAX_LIST)
            )
        ],
    }


def _is_scope(scope: Any) -> bool:
    if not isinstance(scope, dict) or not _is_id(scope.get("id")):
        return False
    label = scope.get("label")
    # A part of a label would be another scope.
    return isinstance(label, str) and 0 < len(label) <= _MAX_LINE


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**53 else None


def _moment(value: Any) -> int | None:
    """Return a Unix time that every browser can show."""
    return value if type(value) is int and 0 < value < 10**11 else None


def _closed(asked_by: int, closed_by: int, events: Told) -> dict[str, Any] | None:
    """Return what became of a question."""
    asked, closing = _marker_of(asked_by, events), _marker_of(closed_by, events)
    if asked is None or closing is None:
        return None
    is_answer = closing.get("event") == "answered"
    said = closing if is_answer else {}
    why = closing.get("reason") if closing.get("event") == "withdrawn" else "ended"
    room = _Room()
    return {
        "id": asked["id"],
        "event_id": asked_by,
        "closed_at": events[closed_by][1],
        "code": asked["code"] if _is_id(asked.get("code")) else "",
        "kind": asked["kind"],
        "tool": room.text(asked.get("tool"), _MAX_SUMMARY),
        "summary": _summary(asked, room),
        "decision": room.text(said.get("decision"), _MAX_SUMMARY) if is_answer else None,
        "by": room.text(said.get("by"), _MAX_SUMMARY),
        "scope": room.text(said.get("scope"), _MAX_LINE),
        "message": room.text(said.get("message"), _MAX_WORDS_SHOWN),
        "reason": "" if is_answer else room.text(why, _MAX_SUMMARY),
    }


_MAX_WORDS_SHOWN: Final = 500


def _summary(asked: dict[str, Any], room: _Room) -> str:
    """Return in a line what a question was about."""
    questions, given = asked.get("questions"), asked.get("input")
    if asked["kind"] == "question" and isinstance(questions, list) and questions:
        first = questions[0]
        return room.text(first.get("question") if isinstance(first, dict) else "", _MAX_SUMMARY)
    if asked["kind"] == "permission" and isinstance(given, dict):
        told = [given[name] for name in _TELLING if isinstance(given.get(name), str)]
        return room.text(told[0] if told else asked.get("title"), _MAX_SUMMARY)
    return ""


def _message(message_id: str, event_id: int, events: Told) -> dict[str, Any]:
    marker = _marker_of(event_id, events) or {}
    return {
        "id": message_id,
        "event_id": event_id,
        "queued_at": events.get(event_id, ("", 0.0))[1],
        "text": _Room().text(marker.get("text"), _MAX_LINE),
    }


# --- an answer ------------------------------------------------------------------------------------


def read_answer(body: dict[str, Any], card: dict[str, Any]) -> tuple[str, str]:
    """Return the command that answers a card, and what is noted about it, without anybody's words.

    Raises: AnswerError.
    """
    if body.get("digest") != card["digest"]:
        raise AnswerError(409, "The question has changed; look at it again.")
    decision = body.get("decision")
    if decision not in ("allow", "deny"):
        raise AnswerError(400, "decision is allow or deny.")
    if decision == "allow" and not card["whole"]:
        raise AnswerError(409, "It is not shown whole, so it can only be denied.")
    answer = {"id": card["id"], "digest": card["digest"], "decision": decision}
    noted = f"{card['code'] or card['id']}: {decision}"
    if body.get("message") not in (None, ""):
        answer["message"] = _words(body["message"], "message")
    if decision == "allow" and card["questions"]:
        answer["answers"] = _read_picks(body.get("answers"), card["questions"])
    scope_id = body.get("scope")
    if scope_id is not None:
        labels = {each["id"]: each["label"] for each in card["scopes"]}
        if decision != "allow" or not isinstance(scope_id, str) or scope_id not in labels:
            raise AnswerError(400, "This scope was not offered.")
        answer["scope"] = scope_id
        noted += f", for this run: {labels[scope_id]}"
    return f"{ANSWER}{json.dumps(answer, ensure_ascii=False)}", noted


def typed_answer(text: str, cards: list[dict[str, Any]]) -> str | None:
    """Return what is noted about a message that answers one of these cards by its code."""
    match = _TYPED.match(text)
    if match is None or match[2].upper() not in [card["code"] for card in cards]:
        return None
    return f"{match[2].upper()}: {match[1].lower()}, typed"


def _words(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise AnswerError(400, f"{name} is a text.")
    if len(value) > MAX_WORDS:
        raise AnswerError(400, f"{name} has at most {MAX_WORDS} characters.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise AnswerError(400, f"{name} has half a character in it.") from None
    return value


def _read_picks(picks: Any, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not isinstance(picks, list) or len(picks) != len(questions):
        raise AnswerError(400, "Each question needs an answer.")
    return [_read_pick(picked, asked) for picked, asked in zip(picks, questions)]


def _read_pick(picked: Any, asked: dict[str, Any]) -> dict[str, Any]:
    fields = picked if isinstance(picked, dict) else {}
    if "text" in fields:
        text = _words(fields["text"], "text")
        if not text.strip():
            raise AnswerError(400, "An answer in own words is not empty.")
        return {"text": text}
    chosen = fields.get("options")
    most = len(asked["options"]) if asked["multiple"] else 1
    if not isinstance(chosen, list) or not 0 < len(chosen) <= most:
        raise AnswerError(400, "Each question needs an answer.")
    if any(type(each) is not int or not 0 <= each < len(asked["options"]) for each in chosen):
        raise AnswerError(400, "There is no such option.")
    return {"options": sorted(set(chosen))}
