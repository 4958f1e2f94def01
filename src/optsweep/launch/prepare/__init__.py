"""Before training: what a sweep's arms are, whether they may be compared, how many lanes and devices they get."""
