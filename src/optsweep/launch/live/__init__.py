"""A sweep while it goes on: at one look, read again and again for a terminal or a page."""
