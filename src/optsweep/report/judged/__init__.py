"""Judges runs that something else made: a CSV, a W&B export, an MLflow experiment, a data frame.

The same statistics as of a sweep, as far as they reach; what can't be known of such runs is said with the verdict.
"""
