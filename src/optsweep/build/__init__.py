"""Names become objects: rule, schedule, task, search space, suggestions and fingerprint of an arm."""
