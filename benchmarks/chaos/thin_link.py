"""A link that is slow, late, and harmed now and then: a TCP proxy on loopback."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

from benchmarks.serving import free_port

READ_BYTES = 4096
LOOK_S = 0.2
CONNECT_S = 5.0
ASKED_S = 2.0
"""How long it waits for the rest of a request that it answers itself."""


class ThinLink:
    """Passes connections on to ``port`` of loopback.

    Parameters
    ----------
    bytes_per_s
        Of each connection, in each direction; 0: as fast as it can.
    delay_s
        Until what a side says begins to arrive.

    Attributes
    ----------
    port
        Where it listens.
    passed
        Bytes that it has passed on.
    """

    def __init__(self, port: int, *, bytes_per_s: float = 0, delay_s: float = 0.0) -> None:
        self.target, self.bytes_per_s, self.delay_s = port, bytes_per_s, delay_s
        self.passed = 0
        self._is_down = self._is_held = self._is_closed = False
        self._answer = b""
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self.port = free_port()
        self._listen()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Nothing passes, and all connections end in the middle of what they say."""
        self._is_down = True
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for each in pair:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """As :meth:`cut`, and new connections are refused, as those to a server that has ended."""
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)  # a thread that waits for a connection keeps the port otherwise
        self._listener.close()

    def hold(self) -> None:
        """Nothing passes, and no connection ends."""
        self._is_held = True

    def answer(self, said: bytes) -> None:
        """As :meth:`cut`, and whoever connects gets ``said`` as the answer to a request."""
        self._answer = said
        self.cut()

    def mend(self) -> None:
        """Everything passes again."""
        self._is_down = self._is_held = False
        self._answer = b""
        if self._listener.fileno() < 0:
            self._listen()

    def close(self) -> None:
        self._is_closed = True
        if self._listener.fileno() >= 0:
            self.refuse()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), name="thin-link", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._is_closed:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if said := self._answer:
            with client, contextlib.suppress(OSError):
                client.settimeout(ASKED_S)
                client.recv(READ_BYTES)
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)
                while client.recv(READ_BYTES):  # closed before, what is still sent would destroy the answer
                    pass
        elif self._is_down:
            client.close()
        else:
            self._pass_on(client)

    def _pass_on(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target), CONNECT_S)
        except OSError:
            client.close()
            return
        pair = (client, server)
        with self._lock:
            self._pairs.add(pair)
        said_by: socket.socket | None = None
        try:
            while not self._is_down:
                if self._is_held:
                    time.sleep(LOOK_S)
                    continue
                for ready in select.select(pair, [], [], LOOK_S)[0]:
                    piece = ready.recv(READ_BYTES)
                    if not piece:
                        return
                    if ready is not said_by:  # the other side begins to speak
                        time.sleep(self.delay_s)
                        said_by = ready
                    if self.bytes_per_s:
                        time.sleep(len(piece) / self.bytes_per_s)
                    (server if ready is client else client).sendall(piece)
                    self.passed += len(piece)
        except OSError:
            return
        finally:
            with self._lock:
                self._pairs.discard(pair)
            client.close()
            server.close()
