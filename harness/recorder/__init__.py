"""Recordings made, verified, or imported from tables of outcomes."""
