"""What the tests share: servers to talk to, children to run, a terminal to sit at, ways to wait.

`strict_gateway` is an oracle written from the wire protocol alone (its parts are `wire`,
`gateway_rules` and `gateway_records`), `faults` makes it misbehave on purpose, `proxy` stands
between it and a client, and `http_server` and `certificates` carry them.
`terminal`, `processes` and `children` are for real programs in real terminals; `waiting` retries
an assertion. Nothing here imports anything that it is meant to judge.
"""
