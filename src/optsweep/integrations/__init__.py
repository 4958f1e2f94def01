"""Trials in the loops of other frameworks: a module for each, which needs that framework (`optsweep[frameworks]`)."""
