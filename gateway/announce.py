"""What the gateway says when it starts: where the page is, and how to get in."""

from __future__ import annotations

import argparse
import html
import json
import os
import sys
import webbrowser
from pathlib import Path

import segno

from config import write_private
from gateway.assembly import Gateway
from gateway.serving.certificate import fingerprint
from gateway.serving.hosts import Hosts, base_url, is_any, lan_addresses
from gateway.settings import Settings, SettingsError

_OPENER = "open.html"


def tell(
    options: argparse.Namespace,
    settings: Settings,
    hosts: Hosts,
    gateway: Gateway,
    certificate: tuple[Path, Path] | None,
) -> None:
    """Print the addresses, write the file that another program waits for, open a browser."""
    host = options.host
    local = "localhost" if is_any(host) or host in ("127.0.0.1", "::1") else host
    url = options.public_url or base_url(hosts.scheme, local, gateway.port)
    login_url = f"{url}/login?code={gateway.login.make_code()}"
    for note in settings.notes:
        _say(note)
    if certificate is not None:
        _say(f"certificate (SHA-256): {fingerprint(certificate[0])}")
    _say(f"admin token: in {settings.admin_token_file}")
    _say(f"the page, with a login that works once: {login_url}")
    if is_any(host) and not options.public_url:
        _tell_phones(hosts, gateway)
    elif options.public_url:
        _draw(f"{url}/login?code={gateway.login.make_code()}")
    _tell_runners(settings, url, hosts.scheme)
    _say("press Ctrl-C to end")
    if options.ready_file:
        ready = {
            "url": url,
            "port": gateway.port,
            "login_url": login_url,
            "admin_token_file": str(settings.admin_token_file),
            "fingerprint": None if certificate is None else fingerprint(certificate[0]),
            "pid": os.getpid(),
        }
        _write(Path(options.ready_file), json.dumps(ready))
    if not options.no_open and has_display():
        # With a code of its own: the printed one is for whoever copies it.
        code = gateway.login.make_code(lambda: remove_opener(settings.data_dir))
        open_browser(settings.data_dir, f"{url}/login?code={code}")


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


def _tell_runners(settings: Settings, url: str, scheme: str) -> None:
    """Say what a runner on this machine lacks to find this gateway."""
    lacking = [] if settings.runner_url == url else [f"GATEWAY_URL={url}"]
    if scheme == "https" and not settings.runner_allows_self_signed:
        lacking.append("ALLOW_SELF_SIGNED=true")
    if lacking:
        _say(f"runners need {' and '.join(lacking)} in {settings.env_file}")


def _write(path: Path, text: str) -> None:
    """Write a file at once: who waits for it finds all of it."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        write_private(partial, text)
        os.replace(partial, path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error


def _tell_phones(hosts: Hosts, gateway: Gateway) -> None:
    addresses = lan_addresses()
    if not addresses:
        _say("this machine has no address that a phone could use")
    for number, address in enumerate(addresses):
        url = base_url(hosts.scheme, address, gateway.port)
        login_url = f"{url}/login?code={gateway.login.make_code()}"
        _say(f"for a phone in the same network: {login_url}")
        if number == 0:
            _draw(login_url)


def _draw(url: str) -> None:
    if sys.stdout.isatty():
        segno.make(url, error="l").terminal(compact=True)


def has_display() -> bool:
    """Whether a browser that is started here would be seen; one in a terminal is not meant."""
    if sys.platform == "darwin":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _say(line: str) -> None:
    print(f"gateway: {line}", flush=True)
