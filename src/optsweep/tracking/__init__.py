"""What a sweep leaves in MLflow: the names, the writer, the reader. One contract, both ends."""
