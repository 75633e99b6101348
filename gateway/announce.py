"""What the gateway says when it starts: where the page is, and how to get in."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

import segno

from config import write_private
from gateway.assembly import Gateway
from gateway.opener import has_display, open_browser, remove_opener
from gateway.serving.certificate import fingerprint
from gateway.serving.hosts import Hosts, base_url, is_any, lan_addresses, local_name
from gateway.settings import Settings, SettingsError

logger = logging.getLogger(__name__)


def tell(
    options: argparse.Namespace,
    settings: Settings,
    hosts: Hosts,
    gateway: Gateway,
    certificate: tuple[Path, Path] | None,
) -> None:
    """Print the addresses, write the file that another program waits for, open a browser."""
    url = options.public_url or base_url(hosts.scheme, local_name(options.host), gateway.port)
    login_url = f"{url}/login?code={gateway.login.make_code()}"
    if settings.logs_json:
        # A log is kept and shared: it has no login.
        logger.warning("listening", extra={"told": {"url": url, "port": gateway.port}})
    else:
        _tell_person(options, settings, hosts, gateway, certificate, login_url)
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
        # With a code of its own: the printed one is to be copied.
        code = gateway.login.make_code(lambda: remove_opener(settings.data_dir))
        open_browser(settings.data_dir, f"{url}/login?code={code}")


def _tell_person(
    options: argparse.Namespace,
    settings: Settings,
    hosts: Hosts,
    gateway: Gateway,
    certificate: tuple[Path, Path] | None,
    login_url: str,
) -> None:
    url = login_url.partition("/login?")[0]
    for note in settings.notes:
        _say(note)
    if certificate is not None:
        _say(f"certificate (SHA-256): {fingerprint(certificate[0])}")
    _say(f"admin token: in {settings.admin_token_file}")
    _say(f"the page, with a login that works once: {login_url}")
    if is_any(options.host) and not options.public_url:
        _tell_phones(hosts, gateway)
    elif options.public_url:
        _draw(f"{url}/login?code={gateway.login.make_code()}")
    _tell_runners(settings, url, hosts.scheme)
    _say("press Ctrl-C to end")


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


def _say(line: str) -> None:
    print(f"gateway: {line}", flush=True)
