"""The subcommands, and the reading of the command line."""
