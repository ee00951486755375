"""Tasks whose items come from reasoning-gym's generators; the answers are compared by our own code."""
