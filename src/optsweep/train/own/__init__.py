"""A loop that somebody else wrote: the function, what it is handed, and a workload of it."""
