"""Checks of single values; each error is one line that names the key as the user types it and says what is allowed."""
