"""Logged traffic, of which each request has the answer of one model: what other routers would have attained on it."""
