"""The kinds of program that a runner starts: how to start each one, and how to read it."""
