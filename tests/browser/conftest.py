"""What every test of the page needs, under the same guards as the other tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from testing.gateways.embedded_gateway import EmbeddedGateway
from tests.browser import visitor
from tests.browser.npm_packages import xterm_environment
from tests.browser.runs import make_project
from tests.browser.visitor import Visitor


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests; each test has windows and cookies of its own."""
    with sync_playwright() as playwright, visitor.launched(playwright) as browser:
        yield browser


@pytest.fixture(scope="session")
def gateway(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedGateway]:
    """One gateway for most tests, with xterm.js; each test makes runs of its own."""
    gateway = EmbeddedGateway(tmp_path_factory.mktemp("gateway"), env=xterm_environment())
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name == "HMAC_SECRET" or name.startswith("CLAUDE"):
                patch.delenv(name)
        gateway.start()
    visitor.share(gateway)
    with contextlib.ExitStack() as stack:
        stack.callback(gateway.stop)
        yield gateway


@pytest.fixture(scope="session")
def project(gateway: EmbeddedGateway, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One project for most runners: the first one there compiles its modules for the others."""
    return make_project(tmp_path_factory.mktemp("projects") / "project", gateway)


@pytest.fixture
def desk(browser: Browser, gateway: EmbeddedGateway) -> Iterator[Visitor]:
    """Somebody at a desk, logged in."""
    with Visitor(browser, gateway, logged_in=True) as person:
        yield person
