"""What every part of a run works with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from allowlist import Allowlist
    from gateway_client import GatewayClient
    from redact import Rules
    from runner.console import Console
    from runner.folder import RunFolder
    from runner.plan import Job


class RunParts:
    """What a run is to do, and for whom. `started_at` is monotonic time, `began_at` Unix
    time: both before the child.
    """

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        rules: Rules,
        allowlist: Allowlist,
        console: Console,
        open_client: Callable[[], GatewayClient],
    ) -> None:
        self.job = job
        self.folder = folder
        self.rules = rules
        self.allowlist = allowlist
        self.console = console
        self.open_client = open_client
        self.started_at = time.monotonic()
        self.began_at = time.time()
