"""The embedded gateway: it takes what runners send, keeps it, and shows it on a web page.

A process of its own, started with `python -m gateway`. Of the runner's files it uses `redact` and
`runner_config`; the runner imports nothing from here.

Where things are, from the outside in: `command_line` starts and ends everything; `server` is the
HTTP server; `front` decides who answers a request; `wire` speaks the signed protocol with the help
of `admission`; `live` holds the open streams and long polls; `site` serves page and API to whoever
`login` lets in; `store` keeps everything, through the one `writer`, in the tables of `schema`.
"""

__version__ = "0.1.0"
