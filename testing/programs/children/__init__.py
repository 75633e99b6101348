"""Small programs that tests run in the place of Claude Code; each says in its docstring how.

Run them by path with any Python: they import nothing of this project, start fast, and flush.
"""
