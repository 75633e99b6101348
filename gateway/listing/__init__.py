"""The list of runs, and the search through all that they printed."""
