"""The routing MDP: trees, environments on them, their optimum, the value of a policy. Arrays in, arrays out."""
