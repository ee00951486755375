"""Runs: their options, the source of their items, training and evaluation, and the folder that they leave."""
