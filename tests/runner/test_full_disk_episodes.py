"""A slice of `benchmarks/full_disk.py`: whole runs on a small disk, and what happens to both."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.gateways.strict_gateway import StrictGateway
from testing.programs.disk import mount_disk
from testing.programs.episode import DISK_MEGABYTES, Episode


@pytest.mark.parametrize("seed", range(6))
def test_episode(seed: int, tmp_path: Path) -> None:
    """Full disks, outages, resets and kills at random break none of the promises."""
    with (
        mount_disk(tmp_path / "disk", DISK_MEGABYTES) as disk,
        StrictGateway(rate_limit=None) as gateway,
    ):
        episode = Episode(seed, tmp_path, disk, gateway)
        episode.undergo()

        assert episode.problems == []
