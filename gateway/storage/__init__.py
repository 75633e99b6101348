"""What is kept of the runs: the database, its one writer, and the files of artifacts."""
