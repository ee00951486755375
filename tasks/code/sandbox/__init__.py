"""Run Python text that nobody has read, in a process of its own that can compute and answer calls, and nothing else."""
