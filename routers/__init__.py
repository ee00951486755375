"""Routers: states in, actions out."""

from routers.registry import RouterRequest, describe, load, names, register
from routers.router import BilledRouter, Router, RoutingStates, StochasticRouter

__all__ = [
    "BilledRouter",
    "Router",
    "RouterRequest",
    "RoutingStates",
    "StochasticRouter",
    "describe",
    "load",
    "names",
    "register",
]
