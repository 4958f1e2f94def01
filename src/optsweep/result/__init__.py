"""What comes back of a sweep: its results.json as an object, for a program, a notebook and `optsweep show`."""
