"""The load that `serve` holds: requests, errors and latency at several numbers of clients, from a recorded pool.

    python benchmarks/bench_serve.py

The server is the command itself, in a process of its own; its models are a recording, so that what is measured is the
router, the queue and HTTP. Each client sends its next request when it has the answer to the last, over a connection
that it keeps; after a refusal it waits as long as it is told to. The clients run in this process and share the
machine's cores with the server.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import tyro

from harness.runs.source import recording_folder
from pools.data.recording import load_recording


@dataclass(frozen=True)
class Args:
    """What is measured."""

    router: str = "hierrouter"
    recording: Path | None = None
    """by default the one that ships"""
    clients: tuple[int, ...] = (1, 16, 64, 512)
    """512 is more than the queue takes: what comes too much is refused with status 503"""
    seconds: float = 20.0
    """for each number of clients"""
    waiting: int = 256
    """--waiting of the server"""
    shadow: str | None = None
    """--shadow of the server, with a log in a temporary folder"""


async def load(url: str, bodies: list[Any], clients: int, seconds: float) -> tuple[Counter[int], list[float], float]:
    """Statuses, latencies of the answered requests in seconds, and the wall time."""
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    connections = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(url, connector=connections, timeout=aiohttp.ClientTimeout(60)) as session:
        start = time.perf_counter()

        async def client(number: int) -> None:
            turn = number
            while time.perf_counter() - start < seconds:
                sent = time.perf_counter()
                try:
                    async with session.post("/v1/chat/completions", json=bodies[turn % len(bodies)]) as answer:
                        await answer.read()
                except (aiohttp.ClientError, TimeoutError):
                    statuses[0] += 1
                    continue
                statuses[answer.status] += 1
                if answer.status == 200:
                    latencies.append(time.perf_counter() - sent)
                    turn += clients
                else:
                    await asyncio.sleep(float(answer.headers.get("retry-after", 0)))

        await asyncio.gather(*map(client, range(clients)))
        return statuses, latencies, time.perf_counter() - start


def main() -> None:
    """Start the server, load it, stop it."""
    args = tyro.cli(Args, description=__doc__)
    recording = args.recording or recording_folder("lightweight", "offline")
    bodies = [
        {
            "model": "m",
            "messages": [{"role": "user", "content": item.query}],
            "max_tokens": item.settings.max_new_tokens,
            "stop": list(item.settings.until),
        }
        for item in load_recording(recording).tree.items
    ]
    command = [sys.executable, "-m", "harness", "serve", "--router", args.router, "--recording", str(recording)]
    command += ["--port", "0", "--name", "m", "--waiting", str(args.waiting)]
    scratch = tempfile.TemporaryDirectory()
    if args.shadow is not None:
        command += ["--shadow", args.shadow, "--log", f"{scratch.name}/log.jsonl"]
    with scratch, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = next(line for line in server.stdout if "http://" in line)
        url = "http://" + line.split("http://")[1].split("/")[0].split()[0]
        print(f"{args.router} on {recording.name}, {len(bodies)} queries, {args.seconds:.0f} s each", flush=True)
        for clients in args.clients:
            statuses, latencies, wall = asyncio.run(load(url, bodies, clients, args.seconds))
            p50, p99 = np.percentile(latencies, [50, 99]) * 1000
            refused, total = statuses[503], sum(statuses.values())
            errors = total - statuses[200] - refused
            print(
                f"{clients} clients: {total:,} requests, {statuses[200] / wall:.0f} answers/s, {errors} errors, "
                f"{refused} refused, p50 {p50:.1f} ms, p99 {p99:.1f} ms",
                flush=True,
            )
        server.send_signal(signal.SIGTERM)
        print(f"ended on SIGTERM with exit code {server.wait(30)}")


if __name__ == "__main__":
    main()
