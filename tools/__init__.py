"""The subcommands beside `start`, and the reading of the command line."""
