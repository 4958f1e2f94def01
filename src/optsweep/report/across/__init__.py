"""Findings over several groups: run lengths, tasks, the frontier."""
