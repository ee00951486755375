"""The report page of runs."""
