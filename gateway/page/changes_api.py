"""What a run has changed, as the page gets it: the files, and the lines of one."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

from flask import Blueprint, Response, jsonify, request

from gateway.page.changes import files_of, lines_of
from gateway.page.parts import Parts
from gateway.page.request import find_run, refuse

# The runner sends it in parts where a proxy takes no larger ones.
_NAME = re.compile(r"changes(?:\.([0-9]{1,4}))?\.diff")
_PLACE = re.compile(r"[0-9]{1,12}")
# The runner's own diffs have 5 MB at most; any run may upload any file of this name.
_MAX_BYTES = 16 * 1024 * 1024


def add_changes(api: Blueprint, parts: Parts) -> None:
    """Add the addresses."""

    @api.get("/runs/<run_id>/changes")
    def list_changes(run_id: str) -> Response:
        found = _find(parts, run_id)
        files = files_of(_read(parts, run_id, found)) if found else []
        return jsonify({"parts": found, "files": files})

    @api.get("/runs/<run_id>/changes/lines")
    def show_lines(run_id: str) -> Response:
        found = _find(parts, run_id)
        begin, end = (request.args.get(name, "") for name in ("begin", "end"))
        if not _PLACE.fullmatch(begin) or not _PLACE.fullmatch(end):
            refuse(400, "begin and end are those of a file in the list.")
        # Places in an older diff are other lines of this one.
        if not found or found[0]["id"] != request.args.get("of"):
            refuse(404, "The run has sent newer changes.")
        diff = _read(parts, run_id, found)
        text, following = lines_of(diff, int(begin), min(int(end), len(diff)))
        return jsonify({"text": text, "next": following})


def _find(parts: Parts, run_id: str) -> list[dict[str, Any]]:
    """Return the parts of a run's newest diff, in their order."""
    find_run(parts, run_id)
    found = []
    for artifact in parts.store.artifacts(run_id):
        name = _NAME.fullmatch(artifact["name"])
        if name:
            found.append((int(name[1] or 1), artifact))
    return [artifact for _, artifact in sorted(found, key=lambda each: each[0])]


def _read(parts: Parts, run_id: str, found: list[dict[str, Any]]) -> bytes:
    """Return the diff, as far as it is of a size that a runner sends."""
    diff = b""
    try:
        for each in found:
            with closing(parts.files.store.open(run_id, each["id"])) as file:
                while piece := file.read(_MAX_BYTES - len(diff)):
                    diff += piece
    except FileNotFoundError:
        refuse(404, "The run sends newer changes at this moment.")
    return diff
