"""What tests of a run that asks share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testing.gateways.strict_gateway import StrictGateway


@pytest.fixture
def cards() -> Iterator[StrictGateway]:
    """A gateway that shows questions as cards."""
    with StrictGateway(rate_limit=None, extensions=("answers",)) as gateway:
        yield gateway


@pytest.fixture
def plain() -> Iterator[StrictGateway]:
    """A gateway in the field, with an input box."""
    with StrictGateway(rate_limit=None) as gateway:
        yield gateway
