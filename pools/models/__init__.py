"""Models that answer, through lm-eval's model classes: in this process, behind a server, on a cluster."""
