"""What numbers say: statistics, comparison, looks, groups. Pure; the planner and the report ask the same functions."""
