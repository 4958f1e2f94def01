"""Deciding which trials to run: search space, slots, bracketing, choice. Pure functions of the visible history."""
