"""Which of Claude Code's messages tell that files may have changed. Pure."""

from __future__ import annotations

from typing import Any, Final

# Tools that change files, or run what may. What an MCP server's tools change is unknown.
_CHANGING: Final = frozenset({"Bash", "Edit", "MultiEdit", "NotebookEdit", "Write"})
_MCP: Final = "mcp__"
# A run that loops must not fill the memory.
_MAX_REMEMBERED: Final = 1_000


class EditWatch:
    """Tells the results of tools that may have changed files. Thread: one caller."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}

    def feed(self, message: dict[str, Any]) -> bool:
        """Return whether this message has such a result. Any value is a message."""
        inner = message.get("message")
        blocks = inner.get("content") if isinstance(inner, dict) else None
        has_result = False
        for block in blocks if isinstance(blocks, list) else ():
            if isinstance(block, dict):
                self._note_use(block)
                use = block.get("tool_use_id")
                if block.get("type") == "tool_result" and isinstance(use, str):
                    has_result = use in self._waiting or has_result
                    self._waiting.pop(use, None)
        return has_result

    def _note_use(self, block: dict[str, Any]) -> None:
        name, use = block.get("name"), block.get("id")
        if block.get("type") != "tool_use" or not (isinstance(name, str) and isinstance(use, str)):
            return
        if name in _CHANGING or name.startswith(_MCP):
            if len(self._waiting) >= _MAX_REMEMBERED:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[use] = None
