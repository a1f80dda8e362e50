"""What the tests share."""

import os
import socket
import threading
from pathlib import Path
from typing import Callable, Iterator

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def daemon() -> str:
    """The socket of the daemon under test."""
    return os.environ["STOCKADE_SOCKET"]


class Breaking:
    """A socket that passes everything on to the daemon, and breaks each connection after so many bytes of answers."""

    def __init__(self, daemon: str, path: Path, limit: Callable[[int], int]) -> None:
        self.socket = str(path)
        self.broken = 0
        self._daemon = daemon
        self._limit = limit
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.socket)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._daemon)
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client, self._limit(number)), daemon=True).start()
            number += 1

    @staticmethod
    def _end(*ends: socket.socket) -> None:
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                server.sendall(data)
        except OSError:
            pass
        self._end(client, server)

    def _down(self, server: socket.socket, client: socket.socket, left: int) -> None:
        try:
            while data := server.recv(65536):
                client.sendall(data[:left])
                left -= len(data)
                if left <= 0:
                    self.broken += 1
                    break
        except OSError:
            pass
        self._end(client, server)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def breaking(daemon: str, tmp_path: Path) -> Iterator[Callable[[Callable[[int], int]], Breaking]]:
    made: list[Breaking] = []

    def make(limit: Callable[[int], int]) -> Breaking:
        made.append(Breaking(daemon, tmp_path / f"s{len(made)}", limit))
        return made[-1]

    yield make
    for one in made:
        one.close()
