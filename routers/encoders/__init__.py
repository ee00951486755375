"""Encoders: text to vector, registered by name."""
