"""Deciding which trials to run: search space, slots, bracketing, confirmation. Pure functions of the visible history."""
