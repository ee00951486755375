"""Tasks whose items are made up: facts of invented people, sums, and word problems."""
