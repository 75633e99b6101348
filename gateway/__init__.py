"""The embedded gateway: it takes what runners send, keeps it, and shows it on a web page.

A process of its own: `claude-runner gateway`, or `python -m gateway`. Of the runner's files it uses
`redact`, `config` and `places`; the runner imports nothing from here, except to start it.

Where things are, from the outside in:

- `command_line` starts and ends everything; `settings` is what it is told, `assembly` puts the
  parts together, and `announce` tells where the page is
- `front` decides who answers a request: `wire` speaks the signed protocol with runners, `page/` is
  the page and its API, for people that `login` lets in
- `housekeeping` removes old nonces, sessions, runs and notes
- `listing/` is the list of runs with its search, `offers/` the folders that wait for runs
- `notify/` tells people of runs, `screens/` draws a session's screen
- `serving/` is the HTTP server with its open streams; `storage/` is all that is kept
- `admission` checks who speaks on the wire, and `windows` count for it and for `login`; `presence`
  knows which runs are looked at, and which runners are heard of
- `xterm` fetches the browser's terminal
- `demo` is a program of its own, which shows all of it

tests/test_layout.py says which of these may import which.
"""
