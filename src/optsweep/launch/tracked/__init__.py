"""What MLflow is told of a sweep, for people to read."""
