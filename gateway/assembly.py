"""The parts of a gateway, put together, started, and ended in order.

The end goes from the outside in: first the streams and waiting polls, then the requests that are
being answered, then what they have queued for the database.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import Engine

from config import write_private
from gateway import xterm
from gateway.access.gate import Gate
from gateway.access.login import Login
from gateway.admission import Admission, Nonces, RateLimit, SharedNonces
from gateway.front import Front
from gateway.housekeeping import Housekeeping
from gateway.listing.runs import Listing
from gateway.listing.text_index import TextIndex
from gateway.news import News, Notices
from gateway.notify.marks import Marks
from gateway.notify.notifier import Notifier
from gateway.notify.services import ServicesError
from gateway.notify.words import secrets_of
from gateway.observing import request_log
from gateway.observing.health import Health
from gateway.observing.metrics import OTHER, Metrics, serving
from gateway.offers.folders import Offers
from gateway.offers.orders import Orders
from gateway.offers.register import OwnRegister, Register, SharedRegister
from gateway.page.parts import Parts
from gateway.page.scripts import Scripts
from gateway.page.site import build_site
from gateway.presence import Heard, Looks
from gateway.relay import Relay
from gateway.screens.screens import Screens
from gateway.serving.forwarded import TrustedProxies
from gateway.serving.hosts import Hosts, page_url
from gateway.serving.live import Live
from gateway.serving.server import Server, Witness
from gateway.settings import FILES_URL, METRICS, NOTIFY, Settings, SettingsError
from gateway.storage.agreement import Agreed, agreed_with_others, alone_on_file
from gateway.storage.artifacts import ArtifactFiles
from gateway.storage.file_store import FilesAwayError, FileStore, FolderStore
from gateway.storage.object_store import ObjectStore
from gateway.storage.postgresql import is_shared
from gateway.storage.retention import Periods, Retention
from gateway.storage.schema import looking_at, open_database
from gateway.storage.store import Store
from gateway.storage.verdicts import Verdicts
from gateway.storage.writer import Writer
from gateway.wire import Wire
from redact import PatternError, Rules, TokenShape, parse_token_shapes

logger = logging.getLogger(__name__)

# The server's own end takes two seconds at most; a request that will not end is left behind.
STOP_TIMEOUT_S = 3.5
# So long a request that is under way may take when the gateway ends.
FINISH_S = 20.0
_LOOK_AGAIN_S = 0.02
# By these names obstore finds the keys of an object store.
_KEYS_OF_FILES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class ListenError(Exception):
    """The address cannot be listened on; the message is one plain sentence."""


class Gateway:
    """A running gateway: it listens from its making on, and answers inside its `with`.

    Raises: ListenError, DatabaseError, SettingsError.
    """

    def __init__(
        self,
        settings: Settings,
        hosts: Hosts,
        address: tuple[str, int],
        certificate: tuple[Path, Path] | None,
    ) -> None:
        engine = open_database(settings.database_url)
        self._claims = ExitStack()
        self._claims.callback(engine.dispose)
        try:
            settings, agreed = self._claim(engine, settings)
            self._assemble(engine, settings, agreed, hosts, address, certificate)
        except BaseException:
            self._claims.close()
            raise

    def _claim(self, engine: Engine, settings: Settings) -> tuple[Settings, Agreed | None]:
        """Be the only gateway on a file, or one of those that have the same secret."""
        self._claims.enter_context(alone_on_file(engine))
        if not is_shared(engine):
            return settings, None
        agreed = self._claims.enter_context(agreed_with_others(engine, settings.hmac_secret))
        write_private(settings.admin_token_file, f"{agreed.admin_token}\n")
        return replace(settings, admin_token=agreed.admin_token), agreed

    def _assemble(
        self,
        engine: Engine,
        settings: Settings,
        agreed: Agreed | None,
        hosts: Hosts,
        address: tuple[str, int],
        certificate: tuple[Path, Path] | None,
    ) -> None:
        rules = _make_rules(settings)
        files = ArtifactFiles(open_files(settings), rules)
        self._writer = Writer(engine)
        self._store = Store(engine, self._writer)
        self._live = Live(self._store)
        heard, looks = Heard(), Looks()
        self._notifier = Notifier(
            self._store,
            self._live,
            Marks(engine, self._writer),
            looks,
            heard,
            rules,
            settings.notify_quiet,
        )
        try:
            self._notifier.use(settings.notify)
        except ServicesError as error:
            raise SettingsError(f"{NOTIFY}: {error}") from error
        metrics = None
        if settings.metrics is not None:
            metrics = self._serve_metrics(settings.metrics)
        proxies = settings.trusted_proxies
        self._server = _listen(address, certificate, proxies)  # from here on there are threads
        if settings.proxy_login is not None:
            names = settings.proxy_login.headers
            self._server.once = frozenset(name.title().encode() for name in names)
        self.port: int = self._server.bind_addr[1]
        self._link_base = page_url(hosts, address[0], self.port)
        self._index = TextIndex(engine, self._writer)
        self._listing = listing = Listing(engine, self._writer, self._index)
        self._screens = Screens(self._store)
        retention = Retention(engine, self._writer)
        self._housekeeping = Housekeeping(
            self._store,
            listing,
            self._index,
            files.store,
            retention,
            _periods(settings),
            self._forget_runs,
        )
        prefix = "__Host-" if hosts.scheme == "https" else ""
        self.login = Login(
            self._store,
            settings.admin_token,
            settings.admin_token_file,
            # Cookies do not tell ports apart, and there may be a gateway on another one.
            f"{prefix}gateway-{agreed.cookie if agreed else self.port}",
            agreed.link_key if agreed else None,
            settings.proxy_login,
        )
        self.login.when_lost = self._tell_lost
        self._nonces = self._make_nonces()
        admission = Admission(settings.hmac_secret, self._nonces, self._store.find_token_hash)
        register: Register = OwnRegister()
        if self._writer.is_shared:
            register = SharedRegister(engine, self._writer)
        offers = Offers(self._store, Orders(engine, self._writer), self._live, register)
        look = self._claims.enter_context(looking_at(engine))
        told = ["files"] if settings.files_url else []
        self._health = Health({"database": look, "files": files.store.check}, told=told)
        rate_limit = RateLimit(settings.rate_limit, proxies.has)
        health = self._health
        gate = Gate(self._store, offers)
        wire = Wire(
            *(self._store, self._live, admission, rate_limit, rules, files, offers, heard),
            *(health, metrics),
        )
        site = build_site(
            Parts(
                store=self._store,
                live=self._live,
                listing=listing,
                tidy_up=self._tidy_up,
                login=self.login,
                gate=gate,
                offers=offers,
                hosts=hosts,
                files=files,
                notifier=self._notifier,
                looks=looks,
                screens=self._screens,
                retention=retention,
                heard=heard,
                scripts=Scripts(Path(__file__).resolve().parent / "page" / "static"),
                vendor_dir=xterm.folder(),
                start_program="./wrapper/claude-runner",
            )
        )
        self._notices = Notices(self._store, self._live, self._notifier, self._index, metrics)
        self._verdicts = Verdicts(engine, self._writer, self._notices.run_changed)
        self._relay: Relay | None = None
        if self._writer.is_shared:
            news = News(
                self._store,
                self._live,
                self._notices,
                self._index,
                self._notifier,
                self._housekeeping,
                self._verdicts,
                heard,
                looks,
                self.login,
                self._forget_here,
            )
            self._live.others = self._relay = relay = Relay(engine.url, news)
            self._store.when_token_changed = lambda run_id: relay.tell("token", run=run_id)
            looks.when_noted = lambda run_id, page, is_visible: relay.tell(
                "look", run=run_id, page=page, visible=is_visible
            )
        self._server.wsgi_app = Front(
            hosts, proxies, wire, site, self.login, gate, self._store, self._live
        )
        self._server.names_requests = settings.logs_json
        self._server.witness = _make_witness(metrics, logs=settings.logs_json)
        self._serving = threading.Thread(
            target=self._server.serve, name="gateway-server", daemon=True
        )

    def _make_nonces(self) -> Nonces:
        if not self._writer.is_shared:
            return Nonces(self._store.recent_nonces())
        nonces = SharedNonces()
        self._writer.when_spent = nonces.spent
        return nonces

    def _serve_metrics(self, address: tuple[str, int]) -> Metrics:
        """Let Prometheus read there. Before there are threads that an error would leave behind."""
        metrics = Metrics()
        live, writer = self._live, self._writer
        gauges = {
            "viewers": ("Open streams of pages.", lambda: live.parked()[0]),
            "parked_polls": ("Polls of runners that wait.", lambda: live.parked()[1]),
            "queued_writes": ("Jobs that wait for the writer.", lambda: writer.queue_length),
            "nonces": ("Nonces that are remembered.", lambda: self._nonces.count()),
            "requests_under_way": ("Requests that hold a thread.", lambda: self._server.working()),
        }
        writer.when_written = metrics.written
        try:
            self._claims.enter_context(
                serving(
                    *(address, metrics, gauges),
                    *(lambda: self._health.away(), lambda: self._listing.counts()),
                )
            )
        except OSError as error:
            raise ListenError(
                f"cannot listen on {address[0]}, port {address[1]} ({error.strerror or error}); "
                f"change {METRICS}"
            ) from error
        return metrics

    def _forget_runs(self, run_ids: list[str]) -> None:
        """Let nothing of removed runs be in memory, here and at the others."""
        self._forget_here(run_ids)
        if self._relay is not None:
            self._relay.tell("forgotten", runs=run_ids)

    def _forget_here(self, run_ids: list[str]) -> None:
        self._screens.forget(run_ids)
        self._live.forget(run_ids)

    def _tidy_up(self) -> None:
        """Remove what an operator has deleted, at the gateway that has this chore."""
        self._housekeeping.wake()
        if self._relay is not None:
            self._relay.tell("removed")

    def _tell_lost(self) -> None:
        """Look again who is let in: a session or a token was lost."""
        self._live.ask_again()
        if self._relay is not None:
            self._relay.tell("people")

    def __enter__(self) -> Gateway:
        self._writer.start(self._notices)
        self._live.start()
        self._health.start()
        self._notifier.start(self._link_base)
        self._housekeeping.start()
        self._index.start()
        self._verdicts.start()
        if self._relay is None:
            for alone in (self._index, self._housekeeping, self._notifier, self._verdicts):
                alone.lead(leads=True)
        else:
            self._relay.start()
        self._serving.start()
        return self

    def drain(self, least_s: float) -> None:
        """End streams and answer polls, and finish what is under way, for FINISH_S at most.

        Requests are answered for `least_s` in any case, while `/api/health` says that it drains.
        """
        began = time.monotonic()
        self._health.is_draining = True
        self._server.drain()
        self._live.close()
        while time.monotonic() < began + least_s or (
            self._server.is_at_work() and time.monotonic() < began + FINISH_S
        ):
            time.sleep(_LOOK_AGAIN_S)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._health.close()
        self._housekeeping.close()
        self._index.close()
        self._verdicts.close()
        self._notifier.close()
        self._live.close()
        stopping = threading.Thread(target=self._server.stop, name="gateway-stop", daemon=True)
        stopping.start()
        stopping.join(STOP_TIMEOUT_S)
        self._store.close()
        if self._relay is not None:
            self._relay.close()
        self._claims.close()


def _make_witness(metrics: Metrics | None, *, logs: bool) -> Witness | None:
    """Return what is told of each answer."""
    if metrics is None:
        return request_log.tell if logs else None
    answered = metrics.answered

    def witness(environ: dict[str, Any], status: int, seconds: float | None) -> None:
        answered(environ.get("gateway.route", OTHER), status, seconds)
        if logs:
            request_log.tell(environ, status, seconds)

    return witness


def open_files(settings: Settings) -> FileStore:
    """Return the place of the files. Raises: SettingsError."""
    parts = urlsplit(settings.files_url)
    if not parts.scheme:
        return FolderStore(settings.data_dir / "artifacts", is_ours=True)
    try:
        if parts.scheme == "file":
            store: FileStore = FolderStore(Path(unquote(parts.path)), is_ours=False)
        else:
            store = ObjectStore(settings.files_url, settings.data_dir)
    except ImportError as error:
        raise SettingsError(
            f"{FILES_URL} needs obstore; install it with pip, from requirements-files.txt"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{FILES_URL} cannot be used: {error}") from error
    try:
        store.check()
    except FilesAwayError as error:
        # It may be back before anybody needs it.
        logger.warning("the place of the files is away: %s", error)
    return store


def _periods(settings: Settings) -> Periods:
    days = (settings.output_days, settings.files_days, settings.audit_days)
    return Periods(*(each * 86_400 for each in days))


def _make_rules(settings: Settings) -> Rules:
    patterns: tuple[TokenShape, ...] = ()
    if settings.redact_patterns is not None:
        try:
            patterns = tuple(parse_token_shapes(settings.redact_patterns.read_text("utf-8")))
        except (PatternError, OSError, ValueError) as error:
            raise SettingsError(f"{settings.redact_patterns} cannot be used: {error}") from error
    keys = (os.environ.get(name, "") for name in _KEYS_OF_FILES)
    known = (settings.hmac_secret, settings.admin_token, *secrets_of(settings.notify), *keys)
    return Rules([each.encode() for each in known], patterns)


def _listen(
    address: tuple[str, int], certificate: tuple[Path, Path] | None, proxies: TrustedProxies
) -> Server:
    files = None if certificate is None else (str(certificate[0]), str(certificate[1]))
    server = Server(address, None, files, proxies)
    try:
        server.prepare()
    except OSError as error:
        reason = server.bind_error or error
        host, port = address
        raise ListenError(
            f"cannot listen on {host}, port {port} ({reason.strerror or reason}); "
            "choose another with --host or --port"
        ) from error
    return server
