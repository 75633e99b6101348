"""One run, from its plan to its end: a module for each thread, and what the threads share."""
