"""What a sweep leaves in MLflow: schema, writers, reader. One contract, both ends."""
