"""The application: runs, metrics, tables, recordings, the command line."""
