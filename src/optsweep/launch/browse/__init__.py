"""Servers to look around in: MLflow's and Optuna's."""
