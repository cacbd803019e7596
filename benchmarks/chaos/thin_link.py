"""A link that is slow, late, and cut now and then: a TCP proxy on loopback."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

READ_BYTES = 4096
LOOK_S = 0.2
CONNECT_S = 5.0


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
        self._is_down = self._is_closed = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="thin-link", daemon=True).start()

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

    def mend(self) -> None:
        """New connections pass again."""
        self._is_down = False

    def close(self) -> None:
        self._is_closed = True
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_down:
                client.close()
            else:
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

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
