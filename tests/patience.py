"""How long the tests wait for what ends by itself."""

from __future__ import annotations

PATIENCE_SECONDS = 600.0
"""Longer than any machine takes, and shorter than anybody waits for what hangs."""
