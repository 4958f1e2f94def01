"""Optimizers as pure rules over rows of parameters, and what is composed around them."""
