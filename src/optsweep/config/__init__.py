"""What a user configures, as frozen dataclasses, and the door through which a composed Hydra config becomes them."""
