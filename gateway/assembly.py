"""The parts of a gateway, put together, started, and ended in order.

The end goes from the outside in: first the streams and waiting polls, then the requests that are
being answered, then what they have queued for the database.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType

from gateway import xterm
from gateway.admission import Admission, Nonces, RateLimit
from gateway.front import Front
from gateway.housekeeping import Housekeeping
from gateway.listing.runs import Listing
from gateway.listing.text_index import TextIndex
from gateway.login import Login
from gateway.notify.marks import Marks
from gateway.notify.notifier import Notifier
from gateway.notify.services import ServicesError
from gateway.notify.words import secrets_of
from gateway.offers.folders import Offers
from gateway.offers.orders import Orders
from gateway.page.parts import Parts
from gateway.page.scripts import Scripts
from gateway.page.site import build_site
from gateway.presence import Heard, Looks
from gateway.screens.screens import Screens
from gateway.serving.hosts import Hosts, page_url
from gateway.serving.live import ALL_RUNS, Live
from gateway.serving.server import Server
from gateway.settings import NOTIFY, Settings, SettingsError
from gateway.storage.artifacts import ArtifactFiles
from gateway.storage.records import Event
from gateway.storage.schema import open_database
from gateway.storage.store import Store
from gateway.storage.writer import Writer
from gateway.wire import Wire
from redact import PatternError, Rules, TokenShape, parse_token_shapes

logger = logging.getLogger(__name__)

# The server's own end takes two seconds at most; a request that will not end is left behind.
STOP_TIMEOUT_S = 3.5


class ListenError(Exception):
    """The address cannot be listened on; the message is one plain sentence."""


class _Notices:
    """Tells the streams what the writer has stored. Runs in the writer's thread."""

    def __init__(self, store: Store, live: Live, notifier: Notifier, index: TextIndex) -> None:
        self._store = store
        self._live = live
        self._notifier = notifier
        self._index = index

    def events_stored(self, run_id: str, previous_id: int, stored: list[Event]) -> None:
        self._live.events_stored(run_id, previous_id, stored)
        self._index.note(run_id)

    def run_changed(self, run_id: str) -> None:
        self._notifier.run_changed(run_id)
        if not (self._live.has_viewers(run_id) or self._live.has_viewers(ALL_RUNS)):
            return
        run = self._store.run(run_id)
        if run is not None:
            self._live.tell(run_id, "run", run)
            self._live.tell(ALL_RUNS, "run", run)


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
        rules = _make_rules(settings)
        engine = open_database(settings.database_url)
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
        self._server = _listen(address, certificate)  # from here on there are threads
        self.port: int = self._server.bind_addr[1]
        self._link_base = page_url(hosts, address[0], self.port)
        files = ArtifactFiles(settings.data_dir / "artifacts", rules)
        files.remove_partial()
        self._index = TextIndex(engine, self._writer)
        listing = Listing(engine, self._writer, self._index)
        self._housekeeping = Housekeeping(
            self._store, listing, self._index, files, settings.retention_days
        )
        prefix = "__Host-" if hosts.scheme == "https" else ""
        self.login = Login(
            self._store,
            settings.admin_token,
            settings.admin_token_file,
            # Cookies do not tell ports apart, and there may be a gateway on another one.
            f"{prefix}gateway-{self.port}",
        )
        admission = Admission(
            settings.hmac_secret,
            Nonces(self._store.recent_nonces()),
            self._store.find_token_hash,
        )
        offers = Offers(self._store, Orders(engine, self._writer), self._live)
        rate_limit = RateLimit(settings.rate_limit)
        wire = Wire(self._store, self._live, admission, rate_limit, rules, files, offers, heard)
        site = build_site(
            Parts(
                store=self._store,
                live=self._live,
                listing=listing,
                tidy_up=self._housekeeping.wake,
                login=self.login,
                offers=offers,
                hosts=hosts,
                files=files,
                notifier=self._notifier,
                looks=looks,
                screens=Screens(self._store),
                heard=heard,
                scripts=Scripts(Path(__file__).resolve().parent / "page" / "static"),
                vendor_dir=xterm.folder(),
                start_program="./wrapper/claude-runner",
            )
        )
        self._server.wsgi_app = Front(hosts, wire, site, self.login, self._store, self._live)
        self._serving = threading.Thread(
            target=self._server.serve, name="gateway-server", daemon=True
        )

    def __enter__(self) -> Gateway:
        self._writer.start(_Notices(self._store, self._live, self._notifier, self._index))
        self._live.start()
        self._notifier.start(self._link_base)
        self._housekeeping.start()
        self._index.start()
        self._serving.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._housekeeping.close()
        self._index.close()
        self._notifier.close()
        self._live.close()
        stopping = threading.Thread(target=self._server.stop, name="gateway-stop", daemon=True)
        stopping.start()
        stopping.join(STOP_TIMEOUT_S)
        self._store.close()


def _make_rules(settings: Settings) -> Rules:
    patterns: tuple[TokenShape, ...] = ()
    if settings.redact_patterns is not None:
        try:
            patterns = tuple(parse_token_shapes(settings.redact_patterns.read_text("utf-8")))
        except (PatternError, OSError, ValueError) as error:
            raise SettingsError(f"{settings.redact_patterns} cannot be used: {error}") from error
    known = (settings.hmac_secret, settings.admin_token, *secrets_of(settings.notify))
    return Rules([each.encode() for each in known], patterns)


def _listen(address: tuple[str, int], certificate: tuple[Path, Path] | None) -> Server:
    files = None if certificate is None else (str(certificate[0]), str(certificate[1]))
    server = Server(address, None, files)
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
