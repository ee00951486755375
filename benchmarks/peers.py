"""Routers of other projects, measured beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from routers.router import Router, RouterRequest


@dataclass(frozen=True)
class Peer:
    project: str


PEERS: Mapping[str, Peer] = {}


def peer_router(name: str, folder: Path, request: RouterRequest, encoder: str) -> Router:
    raise NotImplementedError
