"""Routers on recorded trees: outcomes, metrics, comparisons. Pure functions of arrays."""
