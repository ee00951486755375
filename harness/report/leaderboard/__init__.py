"""Entries of routers on recordings, and the page that ranks them."""
