"""Claude Code's permission modes, in the order of what it may do unasked."""

from typing import Final

# Nothing above is ever offered.
MODES: Final = ("plan", "default", "acceptEdits")
