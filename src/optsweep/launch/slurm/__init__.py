"""A sweep as jobs of a SLURM cluster: one that plans it and trains, and an array of workers."""
