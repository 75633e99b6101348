"""Regular expressions that count what they read: work in a unit that no machine changes."""

from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    import pytest


class Work:
    """What the patterns of one program have done so far: their uses, and the bytes they read."""

    def __init__(self) -> None:
        self.done = 0
        self._compile = re.compile

    def compile(self, pattern: Any, flags: int = 0) -> CountedPattern:
        """Take the place of `re.compile`."""
        return CountedPattern(self._compile(pattern, flags), self)


class CountedPattern:
    """A compiled pattern.

    What it reads is counted from where it begins to where its match ends, or to the end of what a
    search was handed. How far a match went that came to nothing is not known: that is one use.
    """

    def __init__(self, pattern: re.Pattern[Any], work: Work) -> None:
        self._pattern = pattern
        self._work = work

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pattern, name)

    def search(self, text: Any, at: int = 0, end: int = sys.maxsize) -> re.Match[Any] | None:
        """As the pattern's own."""
        found = self._pattern.search(text, at, end)
        self._count(at, min(end, len(text)) if found is None else found.end())
        return found

    def match(self, text: Any, at: int = 0, end: int = sys.maxsize) -> re.Match[Any] | None:
        """As the pattern's own."""
        found = self._pattern.match(text, at, end)
        self._count(at, at if found is None else found.end())
        return found

    def fullmatch(self, text: Any, at: int = 0, end: int = sys.maxsize) -> re.Match[Any] | None:
        """As the pattern's own."""
        found = self._pattern.fullmatch(text, at, end)
        self._count(at, at if found is None else found.end())
        return found

    def finditer(self, text: Any, at: int = 0, end: int = sys.maxsize) -> Any:
        """As the pattern's own, to its end."""
        self._count(at, min(end, len(text)))
        return self._pattern.finditer(text, at, end)

    def findall(self, text: Any) -> list[Any]:
        """As the pattern's own."""
        self._count(0, len(text))
        return self._pattern.findall(text)

    def split(self, text: Any, maxsplit: int = 0) -> list[Any]:
        """As the pattern's own."""
        self._count(0, len(text))
        return self._pattern.split(text, maxsplit)

    def sub(self, replacement: Any, text: Any, count: int = 0) -> Any:
        """As the pattern's own."""
        self._count(0, len(text))
        return self._pattern.sub(replacement, text, count)

    def _count(self, begin: int, end: int) -> None:
        self._work.done += 1 + max(0, end - begin)


def import_counted(
    name: str, monkeypatch: pytest.MonkeyPatch, *rooms: str
) -> tuple[ModuleType, Work]:
    """Import a module and its rooms anew, for one test; return it and its work."""
    work = Work()
    for loaded in [each for each in sys.modules if each.split(".")[0] in (name, *rooms)]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(re, "compile", work.compile)
    return importlib.import_module(name), work
