"""What the API offers, as an OpenAPI document."""

from __future__ import annotations

from typing import Any

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "claude-runner gateway", "version": "1"},
    "paths": {},
}
