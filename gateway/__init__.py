"""The embedded gateway: it takes what runners send, keeps it, and shows it on a web page.

A process of its own: `claude-runner gateway`, or `python -m gateway`. Of the runner's files it uses
`redact`, `config` and `places`; the runner imports nothing from here, except to start it.

Where things are, from the outside in:

- `command_line` starts and ends everything; `settings`, `certificate` and `hosts` are what it needs
  for it, `assembly` puts the parts together, and `announce` tells where the page is
- `server` is the HTTP server, and `front` decides who answers a request
- `wire` speaks the signed protocol with runners; `admission` checks who they are, and `artifacts`
  are their files
- `site` serves the page and its API, which `openapi` describes, to people that `login` lets in;
  `page_request` checks what the page sends
- `listing` (API: `listing_api`) is the list of runs, `text_index` its search; `search` looks into
  one run; `markdown` makes trees of Claude's words; `changes` is the file of what a run changed
- `screens` draws a session's screen with `terminal_model`
- `offers` (API: `offers_api`) are the folders that wait for runs, `orders` the runs sent to them
- `notify` decides who is told of a run, `notify_sender` is the process that tells them; `presence`
  knows which runs are looked at, and which runners are heard of
- `live` holds the open streams and the polls that wait
- `store` answers and changes everything that is kept, through the one `writer`; `schema` has the
  tables, `records` what a run's markers say, and `housekeeping` removes what is over
- `windows` count, for the limits of requests and of wrong tokens
- `demo` is a program of its own, which shows all of it
"""
