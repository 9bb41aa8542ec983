"""The three Celery tasks of a job: compile, execute, resolve. ``stage`` says how each survives a crash."""
