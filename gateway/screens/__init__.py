"""The screens of sessions, as they stand."""
