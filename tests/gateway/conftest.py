"""Gateways for the tests of this folder: each a real process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testing.embedded_gateway import EmbeddedGateway


@pytest.fixture(scope="session")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway without TLS and without a rate limit, shared: each test has runs of its own."""
    with EmbeddedGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway
