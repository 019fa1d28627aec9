"""A Spark cluster as what the engine runs on: its settings, sessions, and lines for spark-submit.

It never knows what a job computes.
"""
