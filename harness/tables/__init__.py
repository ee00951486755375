"""Tables of a summary: one grid, shown on the terminal or exported."""
