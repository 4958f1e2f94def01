"""Training: the arena that holds the parameters, and the only training loop. Knows nothing of Hydra, Optuna, MLflow."""
