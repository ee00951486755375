"""`python -m harness serve`: a router as a server that clients of OpenAI can use."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.runs.progress import generation_progress
from harness.runs.routers import UNTRAINED
from pools.errors import UserError
from pools.extras import installing
from pools.models.generator import LiveGenerator
from pools.names import check_name
from pools.secrets import remember
from routers.registry import registered_name

if TYPE_CHECKING:
    from harness.serving.config import Serve

KEY_VARIABLE = "HARNESS_API_KEY"
MAX_SECONDS = 86_400  # seconds that a query may take: a day
ENDING = 5.0  # seconds that models may go on working once everybody has an answer
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(options: Serve, console: Console) -> None:
    """Serve until SIGTERM or Ctrl-C; then take no more requests, answer those that are there, and return.

    Exits with code 1 if that was not possible in time. A second signal ends the process at once.
    Raises UserError for options that make no server, before anything listens.
    """
    try:
        import uvicorn

        from harness.serving.app import create_app
        from harness.serving.batcher import Dispatcher
        from harness.serving.routed import routed
        from harness.serving.traffic_log import ShadowProcess, TrafficLog, router_shadow
        from routers.registry import row_name
    except ImportError as error:
        raise UserError(
            f"serving needs packages that are not installed ({error.name}): {installing('serve')}"
        ) from None

    for flag in ("batch_size", "waiting", "max_tokens", "max_body_bytes"):
        if getattr(options, flag) < 1:
            raise UserError(f"--{flag.replace('_', '-')} {getattr(options, flag)}: expected at least 1")
    if not 0 < options.timeout <= MAX_SECONDS:
        raise UserError(f"--timeout {options.timeout}: expected seconds, above 0 and at most {MAX_SECONDS}")
    if options.shadow is not None and options.log is None:
        raise UserError(f"--shadow {options.shadow}: what it would have done is written to a log; name one with --log")
    if options.shadow_checkpoint is not None and options.shadow is None:
        raise UserError("--shadow-checkpoint is of a shadow router; name that with --shadow")
    name = row_name(options.router) if options.name is None else check_name(options.name, "--name")
    key = read_key(options.api_key_file)

    def taught(router: str, checkpoint: Path | None) -> dict[str, Any]:
        """What a router has learnt, or learns from."""
        by_itself = checkpoint is not None or registered_name(router) in UNTRAINED
        return {"checkpoint": checkpoint, "train_on": None if by_itself else options.train_on}

    of_router = taught(options.router, options.checkpoint)
    of_shadow = None if options.shadow is None else taught(options.shadow, options.shadow_checkpoint)
    if options.train_on is not None and not any(each and each["train_on"] for each in (of_router, of_shadow)):
        raise UserError("--train-on: no router here learns at the start; omit it, or omit --checkpoint")
    shared: dict[str, Any] = {
        "pool": options.pool,
        "recording": options.recording,
        "weights": options.weights,
        "max_hops": options.max_hops,
        "cost": options.cost,
        "cost_weight": options.cost_weight,
        "seed": options.seed,
    }

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    bound = _bound(options.host, options.port)  # first: models may take minutes to load
    with generation_progress(console) as on_progress:
        opened = routed(options.router, store=options.store, say=say, on_progress=on_progress, **of_router, **shared)
        opened.warm_up()
    if isinstance(opened.generator, LiveGenerator):
        opened.generator.progress = None  # from now on answers are no news
    dispatcher = Dispatcher(opened, options.batch_size, options.waiting, options.seed)
    shadow = log = None
    if of_shadow is not None:
        beside = {"router": options.shadow, **of_shadow, **shared}
        shadow = ShadowProcess(partial(router_shadow, **beside))
    if options.log is not None:
        log = TrafficLog(options.log, opened.cost_model.unit, dispatcher.metrics, shadow)
    app = create_app(
        dispatcher,
        name,
        key=key,
        max_open=options.waiting + 2 * options.batch_size,  # that wait, a batch with the models, a batch being sent
        max_body_bytes=options.max_body_bytes,
        max_tokens=options.max_tokens,
        seconds=options.timeout,
        log=log,
    )
    listening = _listening(bound, options.host, options.port)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    console.print(
        f"serving {name} over pool {opened.pool.name} at http://{shown}:{port}/v1, "
        f"{'for requests with the key' if key else 'without a key'}; SIGTERM or Ctrl-C ends it",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if key is None and options.host not in _LOOPBACK:
        console.print(f"everyone who reaches {shown} can use it; a key is read from {KEY_VARIABLE} or --api-key-file")
    # Of level `error`: bad requests are no news, and anyone can send them.
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=math.ceil(options.timeout) + 1)
    )

    def end(*_: Any) -> None:  # at the first signal; the next one waits for nothing
        server.should_exit = True
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut off is said below, in one line
        _leave_signals_to_the_system()

    server.handle_exit = end
    _leave_signals_to_the_system()  # uvicorn restores that at its end
    server.run(sockets=[listening])
    cut_off = len(server.server_state.connections)
    finished = dispatcher.close(ENDING)
    logged = log is None or log.close(ENDING)
    if finished and logged and not cut_off:
        console.print("stopped: every request that was taken is answered", highlight=False)
        return
    busy = "" if finished else "; a model was still at work on queries whose time was up"
    busy += "" if logged else "; the log lacks the last calls"
    print(f"harness: stopped; connections that were cut off: {cut_off}{busy}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # a thread may be inside a model, where an ordinary exit would take Python away from it


def read_key(file: Path | None) -> str | None:
    """The bearer key: of a file, or of the environment; None if there is none.

    Not an option of its own, since every user of the machine can read the command line.
    """
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None  # wiped from texts, as every key of the environment
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"--api-key-file {file} cannot be read: {error}") from None
    if not key:
        raise UserError(f"--api-key-file {file} is empty; put the key into it")
    remember(key, "api_key")
    return key


def _leave_signals_to_the_system() -> None:
    """So that a signal ends the process at once, even while other threads keep Python busy."""
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, signal.SIG_DFL)


def _bound(host: str, port: int) -> socket.socket:
    """A socket at the address. Raises UserError if that is taken, or none of this machine's."""
    six = ":" in host
    bound = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, port))
    except (OSError, OverflowError, TypeError) as error:  # OverflowError: of a port, TypeError: of a host
        raise _taken(host, port, error) from None
    # Headers and body are sent one after the other: without this the body waits 40 ms for the client's acknowledgement.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _listening(bound: socket.socket, host: str, port: int) -> socket.socket:
    """The socket, which listens from now on. Raises UserError if another has come before it meanwhile."""
    try:
        bound.listen(2048)
    except OSError as error:
        raise _taken(host, port, error) from None
    return bound


def _taken(host: str, port: int, error: Exception) -> UserError:
    return UserError(f"cannot listen at {host}:{port}: {error}; name another --host or --port")
