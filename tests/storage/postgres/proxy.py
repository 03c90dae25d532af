"""A proxy before a server, which cuts a connection at a COMMIT: it is done and nobody is told, or it never arrives."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Proxy:
    """Listens on a port of its own; once `armed`, the answer to the next COMMIT is kept and the connection cut.

    Told to `lose` the next COMMIT, it cuts the client off, and the server hears of nothing.
    """

    def __init__(self, to: str | tuple[str, int]) -> None:
        self._to = to
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.armed = self.lose = False
        self.cuts = 0
        self._left: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                up = socket.socket(socket.AF_UNIX if isinstance(self._to, str) else socket.AF_INET)
                up.connect(self._to)
                cut = threading.Event()
                threading.Thread(target=self._pump, args=(client, up, cut, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(up, client, cut, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, cut: threading.Event, forth: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if forth and self.armed and b"COMMIT" in data:
                    self.armed = False
                    cut.set()
                if forth and self.lose and b"COMMIT" in data:
                    self.lose = False
                    self.cuts += 1
                    self._left.append(target)
                    source.shutdown(socket.SHUT_RDWR)
                    return
                if not forth and cut.is_set():
                    self.cuts += 1
                    break
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        for each in self._left:
            each.close()
