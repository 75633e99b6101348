"""Folders that wait for runs (`claude-runner wait`): which of them are there, and what they take.

That is what they say every few seconds, so it is in the `register`; what was queued for them is in
`orders`. See docs/protocol.md, "Folders that wait". Thread: any.
"""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import time
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError

from gateway.admission import Admitted, RefusedError
from gateway.offers.orders import (
    FAILED,
    MAX_QUEUED_S,
    QUEUED,
    REFUSED,
    TAKEN,
    WITHDRAWN,
    Orders,
    Wish,
)
from gateway.offers.register import Folder, Folders, Register, Said
from gateway.roles import Person
from gateway.serving.live import Live
from gateway.storage.records import PENDING
from gateway.storage.store import Store
from redact import Rules

MAX_WAIT_S = 20.0
MAX_PROMPT_CHARACTERS = 20_000
MAX_QUEUED = 20
_MAX_HERE = 200
_MAX_UNPAIRED = 50
_MAX_NAME = 60
_MAX_MODES = 10
# For the id of a run that is not seen.
HIDDEN = "-"
_OLDER = "The claude-runner in this folder cannot go on with a session; update it"
# Read from a screen and typed on a phone: no letters and digits that look alike.
_CODE_LETTERS = "ABCDEFGHJKMNPQRTUVWXY346789"
_CODE_LENGTH = 6


class OfferError(Exception):
    """What the page asks for cannot be; the message is one plain sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def read_said(content: Any, rules: Rules) -> Said:
    """Read the body of a waiting folder's request. Raises: RefusedError."""
    if not isinstance(content, dict):
        raise RefusedError(400, "The body is an object")
    modes, ended = content.get("modes", []), content.get("ended")
    if not isinstance(modes, list) or len(modes) > _MAX_MODES:
        raise RefusedError(400, "modes is a short list")
    if not (ended is None or isinstance(ended, dict)):
        raise RefusedError(400, "ended is an object")
    return Said(
        _word(content.get("session"), "session"),
        content.get("begins") is True,
        content.get("leaves") is True,
        rules.redact(_line(content.get("name"), "name")),
        rules.redact(_line(content.get("machine") or " ", "machine")).strip(),
        tuple(_word(each, "mode") for each in modes),
        content.get("asks") is True,
        _word(content["running"], "running") if content.get("running") else "",
        _word(content["code"], "code") if content.get("code") else None,
        ended,
        content.get("resumes") is True,
    )


def read_take(content: Any) -> tuple[str, str, int, str]:
    """Read the body that takes a run: session, run, hand-out, token. Raises: RefusedError."""
    fields = content if isinstance(content, dict) else {}
    handout, token = fields.get("handout"), _word(fields.get("token"), "token", 128)
    if type(handout) is not int or not 0 < handout < 2**31 or len(token) < 32:
        raise RefusedError(400, "handout is a number, and token has at least 32 characters")
    return _word(fields.get("session"), "session"), _word(fields.get("run"), "run"), handout, token


def _word(text: Any, name: str, limit: int = 64) -> str:
    is_word = isinstance(text, str) and text.isascii() and text.replace("_", "").replace("-", "")
    if not is_word or not is_word.isalnum() or len(text) > limit:
        raise RefusedError(400, f"{name} has letters, digits, _ and -, at most {limit}")
    return str(text)


def _line(text: Any, name: str) -> str:
    if not isinstance(text, str) or not text or not text.isprintable() or len(text) > _MAX_NAME:
        raise RefusedError(400, f"{name} is one line of 1 to {_MAX_NAME} characters")
    return text


class Offers:
    """The folders that wait, and what the operator does with them."""

    def __init__(self, store: Store, orders: Orders, live: Live, register: Register) -> None:
        self._store = store
        self._orders = orders
        self._live = live
        self._register = register
        # One after the other: the same request may come twice at once.
        self._sending = threading.Lock()

    # --- what a folder says ---

    def hear(self, waiter_id: str, said: Said) -> bool:
        """Take note of a folder; return whether another process has replaced this one."""

        def note(folders: Folders) -> tuple[bool, bool]:
            # Here: what is read before the operator's word must not be noted after it.
            is_let_in = self._orders.names_of(waiter_id) is not None
            known = folders.pop(waiter_id, None)
            is_other = known is not None and known.said.session != said.session
            if known is not None and is_other and not said.begins:
                folders[waiter_id] = known
                return True, False
            if not said.leaves:
                before = None if is_other else known
                folder = self._noted(folders, said, before, is_let_in=is_let_in)
                folders[waiter_id] = folder
            return False, is_other

        is_replaced, is_other = self._register.change(note)
        if is_replaced:
            return True
        if said.ended is not None:
            self._orders.note_end(waiter_id, said.ended)
        if is_other:
            self._live.command_queued(waiter_id)  # the replaced one learns of it now
        return False

    def _noted(
        self, folders: Folders, said: Said, known: Folder | None, *, is_let_in: bool
    ) -> Folder:
        strangers = [key for key, each in folders.items() if each.code is not None]
        if len(strangers) >= _MAX_UNPAIRED:
            del folders[strangers[0]]
        if len(folders) >= _MAX_HERE:
            raise RefusedError(400, "Too many folders wait here already")
        now = self._register.now()
        code = None
        if not is_let_in:
            code = (known and known.code) or _new_code(folders)
        return Folder(said, known.since if known else time.time(), now, code, said.running)

    def answer(self, waiter_id: str, session: str) -> dict[str, Any]:
        """Return what a folder is told: its code until it is let in, and the run that is next."""
        folder = self._register.find(waiter_id)
        is_replaced = folder is not None and folder.said.session != session
        code = None if folder is None else folder.code
        is_free = not (folder is None or is_replaced or code or folder.running)
        resumes = folder is not None and folder.said.resumes
        queued = self._orders.queued(waiter_id) if is_free else []
        for row in () if resumes else [each for each in queued if _session_of(each)]:
            refused = {"run": row.run_id, "handout": row.handout, "refused": _OLDER}
            self._orders.note_end(waiter_id, refused)
        queued = [each for each in queued if resumes or not _session_of(each)][:1]
        return {
            "ok": True,
            "replaced": is_replaced,
            "code": code,
            "run": next(map(_shown_to_folder, queued), None),
        }

    def take(
        self, admitted: Admitted, session: str, run_id: str, handout: int, token: str
    ) -> dict[str, Any]:
        """Hand a run out; see `Orders.take`."""
        reason = self._orders.take(admitted, session, run_id, handout, token)
        if reason is not None:
            return {"ok": True, "taken": False, "reason": reason}
        self._store.forget_token(run_id)

        def note(folders: Folders) -> None:
            folder = folders.get(admitted.run_id)
            if folder is not None and folder.said.session == session:
                folder.running = run_id

        self._register.change(note)
        return {"ok": True, "taken": True, "reason": ""}

    # --- what the operator does ---

    def shown(self, person: Person) -> dict[str, Any]:
        """Return the folders that wait, as the API shows them to a person."""
        here = self._register.here().items()
        paired = [(key, each) for key, each in here if each.code is None]
        known = [
            self._shown(key, each, person)
            for key, each in paired
            if person.sees_offer(each.said.name)
        ]
        known.sort(key=lambda each: (each["name"], each["machine"], each["id"]))
        return {"offers": known, "unpaired": len(here) - len(paired)}

    def name_of(self, waiter_id: str) -> str | None:
        """Return the name of a folder that waits, or was let in."""
        folder = self._register.find(waiter_id)
        names = self._orders.names_of(waiter_id) if folder is None else (folder.said.name, "")
        return None if names is None else names[0]

    def _shown(self, waiter_id: str, folder: Folder, person: Person) -> dict[str, Any]:
        running = folder.running
        if running and not self._store.sees(person, running):
            running = HIDDEN
        return {
            "id": waiter_id,
            "name": folder.said.name,
            "machine": folder.said.machine,
            "since": folder.since,
            "running": running or None,
            "queued": len(self._orders.queued(waiter_id)),
            "asks": folder.said.asks,
            "modes": list(folder.said.modes),
            "resumes": folder.said.resumes,
        }

    def pair(self, code: str, person: Person) -> dict[str, Any]:
        """Let the folder in whose terminal shows this code. Raises: OfferError."""
        typed = "".join(filter(str.isalnum, code.upper()))
        here = self._register.here().items()
        found = next(((key, each) for key, each in here if each.code and each.code == typed), None)
        if found is None:
            raise OfferError(404, "No terminal that waits now shows this code.")
        waiter_id, folder = found
        self._orders.let_in(waiter_id, folder.said.name, folder.said.machine)
        self._register.change(lambda folders: _set_code(folders, waiter_id, None))
        self._live.command_queued(waiter_id)
        return self._shown(waiter_id, folder, person)

    def forget(self, waiter_id: str, person: Person) -> None:
        """Let a folder in no longer, and withdraw what is queued for it. Raises: OfferError."""
        with self._sending:  # what is being sent is withdrawn too
            queued = self._orders.queued(waiter_id) if person.is_bounded else []
            if not all(self._store.sees(person, each.run_id) for each in queued):
                raise OfferError(409, "Runs of others are queued for this folder.")
            if not self._orders.shut_out(waiter_id):
                raise OfferError(404, "There is no such folder.")
        self._register.change(lambda folders: _set_code(folders, waiter_id, _new_code(folders)))
        self._live.command_queued(waiter_id)

    def send(self, waiter_id: str, key: str, wish: Wish, person: Person) -> tuple[str, bool]:
        """Make a person's run and queue it for a folder; return its id, and whether it is new.

        The same `key` again is the same run: the page repeats what was not answered. Raises:
        OfferError.
        """
        with self._sending:
            known = self._find_sent(key, person)
            if known is not None:
                return known, False
            self._require(waiter_id, wish)
            adding = self._orders.adding(waiter_id, key, wish)
            names = self._orders.names_of(waiter_id) or ("", "")
            details = {**wish.known, "sent_to": " on ".join(filter(None, names)) or None}
            try:
                run_id, _ = self._store.create_run(
                    wish.prompt, None, details, wish.title, adding, person.name
                )
            except IntegrityError:
                known = self._find_sent(key, person)  # another gateway was faster
                if known is None:
                    raise
                return known, False
        self._live.command_queued(waiter_id)
        return run_id, True

    def _find_sent(self, key: str, person: Person) -> str | None:
        run_id = self._orders.find_by_key(key)
        if run_id is not None and person.is_bounded and not self._store.sees(person, run_id):
            raise OfferError(409, "This key is taken; send it with another one.")
        return run_id

    def _require(self, waiter_id: str, wish: Wish) -> None:
        """Raise OfferError unless this folder waits, and takes such a run."""
        folder = self._register.find(waiter_id)
        if folder is None or folder.code is not None:
            raise OfferError(409, "This folder does not wait any more.")
        if wish.known.get("session_id") and not folder.said.resumes:
            raise OfferError(409, f"{_OLDER}.")
        if wish.ask and not folder.said.asks:
            raise OfferError(409, "Questions to the page are not allowed in this folder.")
        if wish.mode is not None and (wish.ask is False or wish.mode not in folder.said.modes):
            raise OfferError(409, "This mode is not allowed in this folder.")
        if len(self._orders.queued(waiter_id)) >= MAX_QUEUED:
            raise OfferError(409, f"{MAX_QUEUED} runs are queued for this folder already.")

    def send_again(self, run_id: str) -> None:
        """Queue a run again that has not begun. Raises: OfferError."""
        with self._sending:
            order, shown = self._orders.find(run_id), self.order(run_id)
            if order is None or shown is None or not shown["may_send"]:
                raise OfferError(409, "This run cannot be sent to its folder now.")
            known = json.loads(order.details)
            self._require(order.waiter_id, Wish(order.command, order.mode, order.ask, known=known))
            if not self._orders.queue_again(order):
                raise OfferError(409, "This run has changed meanwhile.")
            self._store.forget_token(run_id)
        self._live.command_queued(order.waiter_id)

    def withdraw(self, run_id: str) -> None:
        """Take back a run that its folder has not taken yet. Raises: OfferError."""
        if not self._orders.withdraw(run_id):
            raise OfferError(409, "It is not queued any more.")

    def is_starting(self, run_id: str) -> bool:
        """Whether its folder starts this run right now, and nothing of it has come here yet."""
        order = self.order(run_id)
        return order is not None and order["state"] == _STARTING

    def order(self, run_id: str) -> dict[str, Any] | None:
        """Return what became of a run that was sent to a folder; None for any other run."""
        row = self._orders.find(run_id)
        if row is None:
            return None
        names = self._orders.names_of(row.waiter_id) or ("", "")
        folder = self._register.find(row.waiter_id)
        is_here = folder is not None and folder.code is None
        state = _state_of(row, folder if is_here else None)
        queued = self._orders.queued(row.waiter_id) if state == QUEUED else []
        # It may have been taken a moment ago.
        before = list(itertools.takewhile(lambda each: each.run_id != run_id, queued))
        return {
            "state": state,
            "folder": folder.said.name if folder is not None else names[0],
            "machine": folder.said.machine if folder is not None else names[1],
            "offer": row.waiter_id if is_here else None,
            "is_here": is_here,
            "ahead": len(before),
            "queued_at": row.queued_at,
            "taken_at": row.taken_at,
            "exit_code": row.exit_code,
            "reason": row.reason or "",
            "began": bool(row.began),
            "may_send": is_here and not row.began and state in _STUCK,
        }


def _set_code(folders: Folders, waiter_id: str, code: str | None) -> None:
    if waiter_id in folders:
        folders[waiter_id].code = code


def _new_code(folders: Folders) -> str:
    used = {each.code for each in folders.values()}
    while True:
        code = "".join(secrets.choice(_CODE_LETTERS) for _ in range(_CODE_LENGTH))
        if code not in used:
            return code


_EXPIRED, _STARTING, _STARTED = "expired", "starting", "started"
_STUCK = (TAKEN, FAILED, REFUSED, WITHDRAWN, _EXPIRED)


def _state_of(row: Row[Any], folder: Folder | None) -> str:
    """Return an order's state, with what its folder says: `folder` is None if it has gone."""
    if row.status != PENDING:
        return _STARTED
    if row.state == QUEUED and row.queued_at < time.time() - MAX_QUEUED_S:
        return _EXPIRED
    if row.state == TAKEN and folder is not None:
        is_at_it = (folder.said.session, folder.running) == (row.session, row.run_id)
        return _STARTING if is_at_it else TAKEN
    return str(row.state)


def _session_of(row: Row[Any]) -> str | None:
    """Return the session that a run goes on with, before it has begun."""
    session: str | None = json.loads(row.details).get("session_id")
    return session


def _shown_to_folder(row: Row[Any]) -> dict[str, Any]:
    session = _session_of(row)
    resumed = {"resume": session, "folder": json.loads(row.details).get("working_dir")}
    return {
        **(resumed if session else {}),
        "id": row.run_id,
        "handout": row.handout,
        "prompt": row.command,
        "mode": row.mode,
        "ask": row.ask,
    }
