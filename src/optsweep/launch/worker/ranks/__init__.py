"""Several processes that train one trial together: a worker's own, or torchrun's."""
