"""What the page and its API work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from gateway.access.gate import Gate
from gateway.access.login import Login
from gateway.listing.runs import Listing
from gateway.notify.notifier import Notifier
from gateway.offers.folders import Offers
from gateway.page.scripts import Scripts
from gateway.presence import Heard, Looks
from gateway.screens.screens import Screens
from gateway.serving.hosts import Hosts
from gateway.serving.live import Live
from gateway.storage.artifacts import ArtifactFiles
from gateway.storage.retention import Retention
from gateway.storage.store import Store


@dataclass(frozen=True)
class Parts:
    """What the site works with."""

    store: Store
    live: Live
    listing: Listing
    tidy_up: Callable[[], None]
    login: Login
    gate: Gate
    offers: Offers
    hosts: Hosts
    files: ArtifactFiles
    retention: Retention
    notifier: Notifier
    looks: Looks
    screens: Screens
    heard: Heard
    scripts: Scripts
    vendor_dir: Path
    start_program: str
