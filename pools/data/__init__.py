"""What models answered, kept: the transition store and recordings."""
