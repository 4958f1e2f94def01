"""Workers that somebody starts on other machines, for a sweep that is planned here."""
