"""uvicorn's server, with an end that comes in bounded time and without a traceback."""

from __future__ import annotations

import asyncio
import signal
import socket
from types import FrameType

import uvicorn

from harness.serving.middleware import Gate

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class DrainingServer(uvicorn.Server):
    """Serves `gate` until a signal comes, then answers what is there for at most `seconds`.

    cut_off: how many connections were not done by then and were closed. A second signal ends the process at once.
    """

    def __init__(self, gate: Gate, host: str, port: int, seconds: float) -> None:
        # Of level `error`: bad requests are no news, and anyone can send them. uvicorn cancels what hangs on after its
        # own limit, with a traceback for each; here all connections are closed before that.
        limit = int(seconds) + 5
        super().__init__(uvicorn.Config(gate, host=host, port=port, log_level="error", timeout_graceful_shutdown=limit))
        self.cut_off = 0
        self._gate, self._seconds = gate, seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal; the next one finds the system's own handler, which waits for nothing."""
        leave_signals_to_the_system()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and wait for those that are there."""
        self._gate.end()
        closing = asyncio.create_task(self._close_all())
        await super().shutdown(sockets)
        closing.cancel()

    async def _close_all(self) -> None:
        await asyncio.sleep(self._seconds)
        left = list(self.server_state.connections)
        self.cut_off = len(left)
        for connection in left:
            connection.transport.abort()


def leave_signals_to_the_system() -> None:
    """A signal ends the process, even while other threads keep Python busy."""
    for kind in SIGNALS:
        signal.signal(kind, signal.SIG_DFL)
