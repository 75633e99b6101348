"""Regular expressions that are compiled when they are first used.

The redactor has some 200, most streams need few of them, and to compile them all took a quarter of
the time until a run's program starts.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast


class Later:
    """Stands in for a compiled pattern, and has its methods from the first use on."""

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self.pattern = pattern
        self.given_flags = flags

    def __getattr__(self, name: str) -> Any:
        """Compile, and keep the method that is asked for: the next call finds it here."""
        found = getattr(re.compile(self.pattern, self.given_flags), name)
        setattr(self, name, found)
        return found


def regex(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return what `re.compile` does, but compile it later. An error in it shows later too."""
    return cast("re.Pattern[AnyStr]", Later(pattern, flags))
