"""What every check with the real Claude Code needs, under the same guards as the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.gateways.strict_gateway import StrictGateway
from testing.programs import claude_code
from testing.programs.model_api import ModelApi
from tests.claude.scene import Scene


@pytest.fixture(scope="session")
def claude() -> Path:
    """Return the program; a registry that is out of reach is a failure."""
    return claude_code.install()


@pytest.fixture
def scene(claude: Path, clean_environment: None, tmp_path: Path) -> Iterator[Scene]:
    """Give a stage of its own to each check."""
    with ModelApi() as api, StrictGateway(rate_limit=None) as gateway:
        yield Scene(claude, api, gateway, tmp_path)
