"""Whether a sweep can run here."""
