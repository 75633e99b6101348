"""Claude Code's permission modes, from the strictest to the most permissive."""

from typing import Final

# Nothing above is ever offered.
MODES: Final = ("plan", "default", "acceptEdits")
