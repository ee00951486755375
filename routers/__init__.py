"""Routers: states in, actions out."""

from routers.registry import describe, load, names, register
from routers.router import BilledRouter, Learnt, Router, RouterRequest, RoutingStates, StochasticRouter

__all__ = [
    "BilledRouter",
    "Learnt",
    "Router",
    "RouterRequest",
    "RoutingStates",
    "StochasticRouter",
    "describe",
    "load",
    "names",
    "register",
]
