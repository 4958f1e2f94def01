"""What a program calls; the command line calls the same."""
