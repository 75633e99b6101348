"""What every test of the page needs, under the same guards as the other tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from testing.embedded_gateway import EmbeddedGateway
from tests_browser import visitor
from tests_browser.npm_packages import put_xterm
from tests_browser.visitor import Visitor

# Clean environment, no way out of the machine, nothing left behind; and the report of skips.
pytest_plugins = ["tests.conftest"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests; each test has windows and cookies of its own."""
    with sync_playwright() as playwright, visitor.launched(playwright) as browser:
        yield browser


@pytest.fixture
def gateway(browser: Browser, clean_environment: None, tmp_path: Path) -> Iterator[EmbeddedGateway]:
    """A gateway of the test's own, with xterm.js."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    gateway = EmbeddedGateway(folder)
    put_xterm(gateway.data_dir)
    with gateway:
        yield gateway


@pytest.fixture
def desk(browser: Browser, gateway: EmbeddedGateway) -> Iterator[Visitor]:
    """Somebody at a desk, logged in."""
    with Visitor(browser, gateway) as person:
        person.log_in()
        yield person
