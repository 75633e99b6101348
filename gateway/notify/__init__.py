"""Telling people that a run needs them, has ended or fell silent."""
