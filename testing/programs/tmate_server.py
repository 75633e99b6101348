"""A server on loopback that the real tmate connects to, run as a program of its own.

Usage: tmate_server.py

Prints `READY <port> <fingerprint>`, then takes orders from stdin, one a line, and prints `DONE`
after each: `greet <JSON text or null>` gives clients from now on this text as their address, or one
that nobody can connect to; `mute` never greets one; `type <JSON text>` types as a guest in the
first pane would; `drop` ends every connection. The end of stdin ends it.

Source: the messages of tmate 2.4.0, msgpack arrays over an SSH subsystem named `tmate`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import sys
from typing import Any

import asyncssh
import msgpack  # type: ignore[import-untyped]

# What the server says, and the one thing that it waits for.
NOTIFY, SET_ENV, READY, PANE_KEY = 0, 4, 5, 6
CLIENT_IS_READY = 9


class Session(asyncssh.SSHServerSession[bytes]):
    """One client of tmate."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._unpacker = msgpack.Unpacker(strict_map_key=False, unicode_errors="replace")

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Keep the channel."""
        self._channel = chan
        self._server.sessions.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        del exc
        self._server.sessions.remove(self)

    def subsystem_requested(self, subsystem: str) -> bool:
        """Accept a client of tmate, and no shell."""
        return subsystem == "tmate"

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Greet the client once it is ready."""
        del datatype
        self._unpacker.feed(data)
        for message in self._unpacker:
            if message[0] == CLIENT_IS_READY and not self._server.is_mute:
                self._greet()

    def _greet(self) -> None:
        address = self._server.new_address()
        self._send(NOTIFY, f"ssh session: {address}")
        self._send(SET_ENV, "tmate_ssh", address)
        self._send(READY)

    def type(self, text: str) -> None:
        """Type into the first pane."""
        for character in text:
            self._send(PANE_KEY, 0, ord("\r" if character == "\n" else character))

    def drop(self) -> None:
        """End the connection."""
        self._channel.get_connection().abort()

    def _send(self, *message: Any) -> None:
        self._channel.write(msgpack.packb(message))


class Server:
    """All clients, and what they are told."""

    def __init__(self) -> None:
        self.is_mute = False
        self.sessions: list[Session] = []
        self._address: str | None = None
        self._port = 0

    def new_address(self) -> str:
        """Return the address for one connection; the next one gets another."""
        return self._address or f"ssh -p{self._port} {secrets.token_hex(12)}@127.0.0.1"

    async def run(self) -> None:
        """Listen until stdin ends."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        listener = await asyncssh.create_server(
            lambda: Guests(self),
            "127.0.0.1",
            0,
            server_host_keys=[key],
            encoding=None,
            compression_algs=["none", "zlib@openssh.com", "zlib"],
        )
        self._port = listener.get_port()
        digest = base64.b64encode(hashlib.sha256(key.public_data).digest()).decode().rstrip("=")
        print(f"READY {self._port} SHA256:{digest}", flush=True)
        loop = asyncio.get_running_loop()
        while order := await loop.run_in_executor(None, sys.stdin.readline):
            name, _, argument = order.strip().partition(" ")
            self._obey(name, json.loads(argument or "null"))
            print("DONE", flush=True)
        listener.close()

    def _obey(self, name: str, argument: str | None) -> None:
        if name in ("greet", "mute"):
            self.is_mute, self._address = name == "mute", argument
            return
        for session in list(self.sessions):
            if argument is None:
                session.drop()
            else:
                session.type(argument)


class Guests(asyncssh.SSHServer):
    """Accepts whoever comes, as a server of tmate does."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def begin_auth(self, username: str) -> bool:
        """Ask nobody for a password or key."""
        del username
        return False

    def session_requested(self) -> Session:
        """Return the session of a client."""
        return Session(self._server)


if __name__ == "__main__":
    asyncio.run(Server().run())
