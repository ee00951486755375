"""The ground floor: candidate models, what they cost, what they answered, and the MDP over them."""

from pools.errors import UserError
from pools.types import (
    Context,
    FinishReason,
    Generation,
    GenerationSettings,
    Generator,
    Item,
    Scorer,
    Split,
    content_hash,
)

__all__ = [
    "Context",
    "FinishReason",
    "Generation",
    "GenerationSettings",
    "Generator",
    "Item",
    "Scorer",
    "Split",
    "UserError",
    "content_hash",
]
