"""The log as lines of JSON, for machines: what went wrong, and who asked for what.

A request is told by its route, never by its address: that may have a code, or what somebody looked
for. What runners send all the time is told only if it was refused, or took long.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Final

from gateway.observing.metrics import OTHER

_SLOW_S: Final = 1.0
# Nobody looks at each of these; the commands are as runners ask for them.
_USUAL: Final = (
    *("/api/ingest/", "/api/offers", "/api/runs/{run_id}/commands"),
    *("/api/health", "/static/"),
)
_logger = logging.getLogger("gateway.requests")


class _Formatter(logging.Formatter):
    """One object a line; `told` of a record are its fields."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "at": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def use_json() -> None:
    """Write all that is logged as JSON, and each request."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Formatter())
    _logger.setLevel(logging.INFO)


def tell(environ: dict[str, Any], status: int, seconds: float | None) -> None:
    """Log an answer. Thread: any."""
    route = environ.get("gateway.route", OTHER)
    is_usual = route.partition(" ")[2].startswith(_USUAL)
    is_slow = seconds is not None and seconds >= _SLOW_S
    if is_usual and status < 400 and not is_slow:
        return
    told = {
        "request": environ.get("gateway.request_id"),
        "route": route,
        "status": status,
        "ms": None if seconds is None else round(1_000 * seconds, 1),
        "address": environ.get("REMOTE_ADDR"),
        "person": environ.get("gateway.person"),
    }
    _logger.info("request", extra={"told": told})
