"""The command line: verbs, Hydra's entry point and its doorman. Nothing imports it."""
