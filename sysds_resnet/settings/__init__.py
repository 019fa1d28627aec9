"""Settings of commands: flags, YAML files and recipes in, checked settings and exit codes out.

It never knows what a setting is for.
"""
