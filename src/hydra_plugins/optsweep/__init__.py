"""Hydra finds its plugins in this namespace; these are shims around optsweep.launch."""
