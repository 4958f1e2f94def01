"""Pools of workers, one file per place where workers may run."""
