"""The runner with the real Claude Code, a fake model and a strict gateway: `make check-claude`."""
