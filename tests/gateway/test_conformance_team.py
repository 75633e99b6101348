"""The wire protocol over two gateways on PostgreSQL behind HAProxy: all that one gateway keeps.

Each request goes to the next gateway, so that what a test does in order happens at both.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import closing

import pytest

from testing.gateways.balancer import team_on
from testing.gateways.embedded_record import EmbeddedRecord
from testing.gateways.postgresql import cluster
from testing.gateways.signing_client import own_client
from tests.gateway import test_conformance as suite
from tests.gateway.test_conformance import Subject

# Every test that asks a gateway with the extensions, and starts none of its own.
TESTS = {
    name: test
    for name, test in vars(suite).items()
    if name.startswith("test_") and "subject" in inspect.signature(test).parameters
}
assert len(TESTS) > 20
globals().update(TESTS)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRecord]:
    """Two gateways on PostgreSQL behind a balancer, for all tests of this module."""
    with cluster() as database, team_on(database, tmp_path_factory.mktemp("team")) as gateway:
        yield EmbeddedRecord(gateway)


@pytest.fixture
def subject(team: EmbeddedRecord) -> Iterator[Subject]:
    """Both gateways behind one address, with a run of the test's own."""
    with closing(own_client(team)) as client:
        yield Subject(team, client, is_extended=True)
