"""A link that takes its time: a proxy before a server, which hands every byte on half a round trip later.

A process of its own: ``python -m scripts.benching.link HOST PORT MILLISECONDS`` prints the port that it listens on.
"""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LARGEST = 2**18


@contextmanager
def slow(host: str, port: int, milliseconds: float) -> Iterator[int]:
    """The port of a link to a server while the block runs.

    Parameters
    ----------
    host, port : str, int
    milliseconds : float
        That a message and its answer are longer under way.
    """
    command = [sys.executable, "-m", __name__, host, str(port), str(milliseconds)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _pump(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Hand on what comes, each part so much later."""
    under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def arrives() -> None:
        with suppress(OSError):
            while True:
                at, data = under_way.get()
                time.sleep(max(0.0, at - time.monotonic()))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)

    threading.Thread(target=arrives, daemon=True).start()
    with suppress(OSError):
        while data := source.recv(_LARGEST):
            under_way.put((time.monotonic() + seconds, data))
    under_way.put((time.monotonic() + seconds, b""))


def main() -> None:
    """Listen until killed."""
    host, port, milliseconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            near, _ = listening.accept()
            far = socket.create_connection((host, port))
            for source, target in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=_pump, args=(source, target, milliseconds / 2000), daemon=True).start()


if __name__ == "__main__":
    main()
