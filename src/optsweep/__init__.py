"""optsweep: which optimizer and learning-rate schedule should you use for your model?"""

__version__ = "0.1.0"
