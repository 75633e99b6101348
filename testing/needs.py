"""What a test needs that is no Python package: it is skipped, by name, where that is missing."""

from __future__ import annotations

import shutil

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where a program is not installed; which may be missing in CI is in allowed_skips.txt."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")
