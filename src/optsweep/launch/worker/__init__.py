"""A worker: what it is asked and told, how it trains trials, and what it leaves behind for others to go on from."""
