"""`python -m harness serve`: a router as a server that clients of OpenAI can use."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pools.errors import UserError
from pools.names import check_name
from pools.secrets import remember

if TYPE_CHECKING:
    from harness.serving.config import Serve
    from harness.serving.routed import Routed

KEY_VARIABLE = "HARNESS_API_KEY"
LONGEST = 86_400  # seconds that a query may take: a day
INSTALL = "pip install fastapi prometheus-client uvicorn"
ENDING = 5.0  # seconds that models may go on working once everybody has an answer
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(options: Serve, console: Console) -> None:
    """Serve until SIGTERM or Ctrl-C; then take no more requests, answer those that are there, and return.

    Exits with code 1 where that was not possible in time. A second signal ends the process at once.
    Raises UserError for options that make no server, before anything listens.
    """
    try:
        from harness.serving.app import SIGNALS, DrainingServer, create_app, leave_signals_to_the_system
        from harness.serving.middleware import Limits
    except ImportError as error:
        raise UserError(f"serving needs packages that are not installed ({error.name}): {INSTALL}") from None
    from harness.serving.batcher import Dispatcher

    for flag in ("port", "batch_size", "waiting", "max_tokens", "max_body_bytes"):
        least = 0 if flag == "port" else 1
        if getattr(options, flag) < least:
            raise UserError(f"--{flag.replace('_', '-')} {getattr(options, flag)}: expected at least {least}")
    if options.port > 65535:
        raise UserError(f"--port {options.port}: expected at most 65535")
    if not 0 < options.timeout <= LONGEST:
        raise UserError(f"--timeout {options.timeout}: expected seconds, above 0 and at most {LONGEST}")
    name = options.router if options.name is None else check_name(options.name, "--name")
    key = read_key(options.api_key_file)
    dispatcher = Dispatcher(partial(_open, options), options.batch_size, options.waiting)
    routed = dispatcher.ready()
    limits = Limits(
        options.max_body_bytes,
        options.max_tokens,
        seconds=options.timeout,
        body_seconds=min(Limits.body_seconds, options.timeout),
        open=options.waiting + 2 * options.batch_size,  # those that wait, a batch with the models, a batch being sent
    )
    gate = create_app(dispatcher, name, key, limits)
    server = DrainingServer(gate, options.host, options.port, options.timeout + 1)
    listening = _bound(options)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    console.print(
        f"serving {name} over pool {routed.pool.name} at http://{shown}:{port}/v1, "
        f"{'for requests with the key' if key else 'without a key'}; SIGTERM or Ctrl-C ends it",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if key is None and options.host not in _LOOPBACK:
        console.print(f"everyone who reaches {shown} can use it; a key is read from {KEY_VARIABLE} or --api-key-file")
    # uvicorn hands the signal on once it has drained; that it came is no failure.
    for kind in SIGNALS:
        signal.signal(kind, lambda *_: None)
    server.run(sockets=[listening])
    leave_signals_to_the_system()
    finished = dispatcher.close(ENDING)
    if finished and not server.cut_off:
        console.print("stopped: every request that was taken is answered", highlight=False)
        return
    busy = "" if finished else "; a model was still at work on queries whose time was up"
    print(f"harness: stopped; connections that were cut off: {server.cut_off}{busy}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # a thread may be inside a model, where an ordinary exit would take Python away from it


def read_key(file: Path | None) -> str | None:
    """The bearer key: of a file, or of the environment; None where there is none.

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


def _bound(options: Serve) -> socket.socket:
    """The listening socket, so that a port that is taken is said in one line."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Headers and body are sent one after the other: without this the body waits 40 ms for the client's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listening.bind((options.host, options.port))
        listening.listen(2048)  # from here on clients are let in, so the address can be told
    except (OSError, OverflowError, TypeError) as error:  # TypeError: what cannot be the name of a host
        raise UserError(
            f"cannot listen at {options.host}:{options.port}: {error}; name another --host or --port"
        ) from None
    return listening


def _open(options: Serve) -> Routed:
    from harness.runs.source import check_weights_folder
    from harness.serving.routed import routed
    from pools.models.generator import LiveGenerator

    check_weights_folder(options.weights)
    made = routed(
        options.router,
        options.pool,
        recording=options.recording,
        weights=options.weights,
        store=options.store,
        checkpoint=options.checkpoint,
        max_hops=options.max_hops,
        cost_weight=options.cost_weight,
        seed=options.seed,
    )
    if isinstance(made.generator, LiveGenerator):
        for model in range(len(made.pool.models)):  # now, so that what is missing is said now
            made.generator.language_model(model)
    _decide_once(made)
    return made


def _decide_once(routed: Routed) -> None:
    """So that what a router imports at its first decision, in seconds, does not keep the first client waiting."""
    import numpy as np

    from pools.types import Context
    from routers import RoutingStates

    actions = np.full((1, routed.max_hops), -1)
    with suppress(UserError):  # of a router that knows recorded queries alone
        routed.router.act(RoutingStates([Context("Hello")], np.zeros(1, np.int64), np.zeros(1), actions))
