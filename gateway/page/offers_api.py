"""What the page does with folders that wait: see them, let them in, and send runs to them."""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, Response, jsonify

from gateway.listing.runs import MAX_TITLE_CHARACTERS
from gateway.offers.folders import MAX_PROMPT_CHARACTERS, OfferError
from gateway.offers.orders import Wish
from gateway.page.listing_api import read_model
from gateway.page.parts import Parts
from gateway.page.request import json_body, note, optional_text, person, refuse, text
from gateway.serving.live import ALL_RUNS

_KEY = re.compile(r"[A-Za-z0-9_-]{16,64}")


def add_offers(api: Blueprint, parts: Parts) -> None:
    """Add the addresses."""
    api.register_error_handler(OfferError, _tell)
    _add_folders(api, parts)
    _add_orders(api, parts)


def _add_folders(api: Blueprint, parts: Parts) -> None:
    @api.get("/offers")
    def list_offers() -> Response:
        return jsonify(parts.offers.shown(person()))

    @api.post("/offers/pair")
    def pair() -> Response:
        offer = parts.offers.pair(text(json_body(), "code", 50), person())
        note(parts, "let a folder in", detail=_names(offer["name"], offer["machine"]))
        return jsonify(offer)

    @api.post("/offers/<waiter_id>/forget")
    def forget(waiter_id: str) -> Response:
        json_body()
        parts.offers.forget(waiter_id, person())
        note(parts, "shut a folder out", detail=waiter_id)
        return jsonify({"ok": True})


def _add_orders(api: Blueprint, parts: Parts) -> None:
    @api.post("/offers/<waiter_id>/runs")
    def send(waiter_id: str) -> tuple[Response, int]:
        key, wish = _read_order(parts, json_body())
        run_id, is_new = parts.offers.send(waiter_id, key, wish, person())
        order = parts.offers.order(run_id)
        if is_new and order is not None:
            detail = _names(order["folder"], order["machine"])
            note(parts, "send to a folder", run_id, detail)
            _tell_change(parts, run_id)
        return jsonify({"id": run_id, "order": order}), 202

    @api.get("/runs/<run_id>/order")
    def show_order(run_id: str) -> Response:
        return jsonify({"order": parts.offers.order(run_id)})

    @api.post("/runs/<run_id>/withdraw")
    def withdraw(run_id: str) -> Response:
        json_body()
        parts.offers.withdraw(run_id)
        note(parts, "withdraw from a folder", run_id)
        _tell_change(parts, run_id)
        return jsonify({"order": parts.offers.order(run_id)})

    @api.post("/runs/<run_id>/send-again")
    def send_again(run_id: str) -> Response:
        json_body()
        parts.offers.send_again(run_id)
        note(parts, "send to a folder again", run_id)
        _tell_change(parts, run_id)
        return jsonify({"order": parts.offers.order(run_id)})


def _read_order(parts: Parts, body: dict[str, Any]) -> tuple[str, Wish]:
    key, prompt = text(body, "key", 64), text(body, "prompt", MAX_PROMPT_CHARACTERS).strip()
    if not _KEY.fullmatch(key):
        refuse(400, "key has 16 to 64 letters and digits.")
    # A prompt of one dash would be read from the terminal.
    if prompt in ("", "-") or "\0" in prompt:
        refuse(400, "prompt says what to do.")
    ask = body.get("ask")
    if not (ask is None or isinstance(ask, bool)):
        refuse(400, "ask is true or false.")
    title = " ".join((optional_text(body, "title", MAX_TITLE_CHARACTERS) or "").split())
    model = read_model(parts, body)
    mode = optional_text(body, "mode", 64)
    return key, Wish(prompt, mode, ask, title or model.title, model.details)


def _tell_change(parts: Parts, run_id: str) -> None:
    """Let open pages look again."""
    run = parts.store.run(run_id)
    if run is not None:
        parts.live.tell(run_id, "run", run)
        parts.live.tell(ALL_RUNS, "run", run)


def _names(name: str, machine: str) -> str:
    return f"{name} on {machine}" if machine else name


def _tell(error: OfferError) -> Any:
    response = jsonify({"error": str(error)})
    response.status_code = error.status
    return response
