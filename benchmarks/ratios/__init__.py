"""What is to be fast, against the plain way of doing it, in one process and one run. `make bench` runs all of it."""
