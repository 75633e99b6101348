"""A browser that is opened on a page of the gateway, with a login that nobody else sees."""

from __future__ import annotations

import html
import os
import sys
import webbrowser
from pathlib import Path

from config import write_private

_OPENER = "open.html"


def show_page(folder: Path, address: str) -> bool:
    """Open a browser, where it would be seen; whether it was."""
    if has_display():
        open_browser(folder, address)
    return has_display()


def open_browser(folder: Path, address: str) -> None:
    """Open a browser with an address that nobody else may see.

    The arguments of a process are for every user of the machine to read, so the browser gets the
    name of a file that leads there, and that its owner alone can read. The browser is looked for in
    the absolute folders of PATH.
    """
    remove_opener(folder)
    file = folder / _OPENER
    link = html.escape(address)
    write_private(
        file,
        f'<!doctype html><meta charset="utf-8"><title>claude-runner</title>'
        f'<meta http-equiv="refresh" content="0; url={link}"><a href="{link}">Go on</a>\n',
    )
    before = os.environ.get("PATH")
    try:
        if before is not None:
            folders = before.split(os.pathsep)
            os.environ["PATH"] = os.pathsep.join(filter(os.path.isabs, folders))
        webbrowser.open(file.absolute().as_uri())
    finally:
        if before is not None:
            os.environ["PATH"] = before


def remove_opener(folder: Path) -> None:
    """Remove the file that leads a browser to the login."""
    (folder / _OPENER).unlink(missing_ok=True)


def has_display() -> bool:
    """Whether a browser that is started here would be seen; one in a terminal is not meant."""
    if sys.platform == "darwin":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
