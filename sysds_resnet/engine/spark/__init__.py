"""Running the engine on a Spark cluster: settings, sessions, and command lines for spark-submit.

Nothing in this package knows what a job computes.
"""
