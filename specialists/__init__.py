"""Training of the small models that ship. Imports everything, and nothing imports it."""
