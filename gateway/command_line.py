"""The command line: it starts the parts, says where the page is, and ends them in order."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from config import VERSION
from gateway.announce import tell
from gateway.assembly import Gateway, ListenError
from gateway.moving import MoveError, move
from gateway.observing import request_log
from gateway.opener import remove_opener
from gateway.serving.certificate import CertificateError, prepare_certificate
from gateway.serving.hosts import LOOPBACK_NAMES, base_url, find_hosts, local_name
from gateway.settings import Settings, SettingsError, load_settings, parse_public_url
from gateway.storage.schema import DatabaseError
from gateway.whereabouts import TakenError, Whereabouts

SAME_SIGNAL_S = 0.2


class StartError(Exception):
    """The gateway cannot start; the message is one plain sentence."""


def main(
    argv: Sequence[str] | None = None, before: Callable[[str, str], None] | None = None
) -> int:
    """Run the gateway until a signal ends it; return the exit code.

    `before` is called with the addresses of the database and of the files, when nothing is wrong
    with what it was told.
    """
    os.umask(0o077)  # SQLite and others make files with what this leaves
    logging.basicConfig(level=logging.WARNING, format="gateway: %(message)s")
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        if given[:1] == ["migrate"]:
            move(given[1:], before or (lambda *_: None), print)
            return 0
        options = _parse(given)
        settings = load_settings(os.environ, options.data_dir, options.env_file)
        if settings.logs_json:
            request_log.use_json()
        with Whereabouts(settings.data_dir) as whereabouts:
            if before is not None:
                before(settings.database_url, settings.files_url)
            _serve(options, settings, whereabouts)
    except TakenError as error:
        print(
            f"claude-runner: a gateway is already running with this data (process {error}); "
            "end it (`gateway --stop`), or use another --data-dir",
            file=sys.stderr,
        )
        return 1
    except (StartError, MoveError, SettingsError, DatabaseError, CertificateError) as error:
        print(f"claude-runner: {error}", file=sys.stderr)
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise StartError(f"{message}; see {self.prog} --help")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="./wrapper/claude-runner gateway",
        description="The gateway for this machine or a small team: a page to watch runs.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=3100, help="port (%(default)s); 0: any free")
    parser.add_argument(
        "--public-url", type=_public_url, metavar="URL", help="address that a proxy in front has"
    )
    parser.add_argument("--http", action="store_true", help="no TLS")
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the data (.data)")
    parser.add_argument("--env-file", metavar="FILE", help="file of the settings (.env)")
    parser.add_argument("--ready-file", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=VERSION)
    return parser.parse_args(argv)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; write a number such as 3100")
    return int(text)


def _public_url(text: str) -> str:
    try:
        return parse_public_url(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an address; write one such as https://gateway.example.org"
        ) from None


def _serve(options: argparse.Namespace, settings: Settings, whereabouts: Whereabouts) -> None:
    scheme = "http" if options.http else "https"
    hosts = find_hosts(options.host, scheme, options.public_url)
    certificate = None
    if scheme == "https":
        names = [*sorted(LOOPBACK_NAMES), *sorted(hosts.names - LOOPBACK_NAMES)]
        certificate = prepare_certificate(settings.data_dir, names)
    with _ending_signal() as signals:
        try:
            gateway = Gateway(settings, hosts, (options.host, options.port), certificate)
        except ListenError as error:
            raise StartError(str(error)) from error
        try:
            with gateway:
                local = base_url(scheme, local_name(options.host), gateway.port)
                whereabouts.tell(
                    {
                        "url": options.public_url or local,
                        "runnerUrl": local,
                        "certificate": certificate and str(certificate[0]),
                        "envFile": str(settings.env_file) if settings.shares_secret else None,
                    },
                    is_shared=settings.shares_secret,
                )
                tell(options, settings, hosts, gateway, certificate)
                signals.recv(1)
                _end_at_once_next_time(signals)
                gateway.drain(settings.drain_s)
        finally:
            remove_opener(settings.data_dir)


def _end_at_once_next_time(signals: socket.socket) -> None:
    """Let the next signal end the process, wherever it stands; what was acknowledged is on disk.

    Not one that belongs to the first: `timeout` and some supervisors send two at once.
    """
    began = time.monotonic()

    def watch() -> None:
        while number := signals.recv(1):
            if time.monotonic() > began + SAME_SIGNAL_S:
                os._exit(128 + number[0])

    threading.Thread(target=watch, name="gateway-impatience", daemon=True).start()


@contextlib.contextmanager
def _ending_signal() -> Iterator[socket.socket]:
    """Take what ends the gateway; yield a socket that has a byte to read once it has come.

    The byte is written where the kernel interrupts the process. A handler in Python needs the main
    thread, and a wait for a lock or queue does not notice a signal that another thread takes, or
    that comes just before the wait begins.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)  # noqa: FBT003 - its only parameter
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(-1)
            writer.shutdown(socket.SHUT_RDWR)  # nobody waits for it any more
