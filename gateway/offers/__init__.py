"""Folders that wait for runs (`claude-runner wait`), and the runs that are sent to them."""
