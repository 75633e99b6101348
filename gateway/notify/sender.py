"""The program that hands messages to services with apprise, as a process of its own.

A service may be slow, or never answer, and apprise takes a second to import: none of that is in the
gateway's process. The addresses come over stdin, because all users of a machine see arguments.
Nothing of an address is ever printed.

In: a line `{"path", "addresses"}`, then lines `{"id", "number", "title", "body", "link"}`.
Out: a line `{"names"}`, then lines `{"id", "problem"}` in any order; no problem is an empty text.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from typing import Any

# These show a message on this machine, or write it there: they reach no pocket, and may block.
_LOCAL = frozenset(
    (
        *("blink1", "dbus", "deltachat", "glib", "gnome", "kde", "macosx", "qt", "syslog"),
        *("windows", "memory", "file"),
    )
)
_NO_ANSWER = "no answer"
_NOT_TAKEN = "it did not take the message"

_stdout_lock = threading.Lock()
# What the last request of a thread came to.
_outcome = threading.local()


def main() -> None:
    """Serve until stdin ends."""
    first = json.loads(sys.stdin.readline())
    sys.path[:] = first["path"]
    logging.disable(logging.CRITICAL)  # of apprise and urllib3: they name addresses
    try:
        services = _Services(first["addresses"])
    except ImportError:
        _tell({"names": None})
        return
    _tell({"names": services.names})
    for line in sys.stdin:
        order = json.loads(line)
        threading.Thread(target=_serve, args=(services, order), daemon=True).start()
    os._exit(0)  # without waiting for threads that still send


def _tell(message: dict[str, Any]) -> None:
    with _stdout_lock:
        sys.stdout.write(f"{json.dumps(message)}\n")
        sys.stdout.flush()


class _Services:
    """The services by their numbers. Each message gets a new object of apprise."""

    def __init__(self, addresses: list[str]) -> None:
        import apprise  # slow, and only in this process

        self._apprise = apprise
        # No picture: a service would fetch it from the site of apprise.
        self._asset = apprise.AppriseAsset(
            plugin_paths=[], secure_logging=True, image_url_mask="", image_url_logo=""
        )
        self._addresses = addresses
        _watch_requests()
        self.names = [self._find_name(each) for each in addresses]

    def _make(self, address: str) -> Any:
        # Never `add`, which would take a list of addresses, or a configuration.
        return self._apprise.Apprise.instantiate(address, asset=self._asset)

    def _find_name(self, address: str) -> str | None:
        """Return what a service is called: its scheme. None for an address that is not taken."""
        try:
            service = self._make(address)
        except Exception:  # noqa: BLE001 - of any plugin
            return None
        name = address.partition("://")[0].lower()
        if service is None or name in _LOCAL:
            return None
        if name in ("http", "https"):  # an address as the service itself gives it to its users
            name = str(service.secure_protocol or service.protocol)
        return name

    def send(self, number: int, title: str, body: str, link: str) -> str:
        """Hand a message over; return an empty text, or what went wrong."""
        problem = _NOT_TAKEN
        service = self._make(self._addresses[number])
        its_send = service.send

        def send(*arguments: Any, **options: Any) -> Any:  # in any thread of apprise
            nonlocal problem
            _outcome.problem = _NOT_TAKEN
            try:
                return its_send(*arguments, **options)
            finally:
                problem = _outcome.problem

        service.send = send
        if getattr(service, "click", "") is None:
            service.click = link  # ntfy's: what a tap opens
        sender = self._apprise.Apprise()
        sender.add(service)
        text = "\n".join(filter(None, (body, link)))
        is_sent = sender.notify(text, title, body_format=self._apprise.NotifyFormat.TEXT)
        return "" if is_sent else problem


def _watch_requests() -> None:
    """Follow no redirect, which could lead to anywhere, and note what a request came to."""
    import requests

    plain = requests.Session.request

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        options["allow_redirects"] = False
        try:
            response = plain(self, *arguments, **options)
        except requests.exceptions.SSLError:
            _outcome.problem = "its certificate is not trusted"
            raise
        except Exception:
            _outcome.problem = _NO_ANSWER
            raise
        _outcome.problem = f"it answered {response.status_code}"
        return response

    requests.Session.request = watched  # type: ignore[method-assign]


def _serve(services: _Services, order: dict[str, Any]) -> None:
    its_id = order.pop("id")
    try:
        problem = services.send(**order)
    except Exception:  # noqa: BLE001 - of any plugin; what it says may name the address
        problem = _NOT_TAKEN
    _tell({"id": its_id, "problem": problem})


if __name__ == "__main__":
    main()
