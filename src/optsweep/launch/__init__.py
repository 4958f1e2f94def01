"""Running trials: the planner that decides them, the workers that train them, the Hydra launcher that starts both."""
