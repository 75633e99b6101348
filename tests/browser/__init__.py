"""The page in a real browser: a gateway's process, runners' processes, and Debian's chromium."""
