"""A sweep tried before it is started."""
