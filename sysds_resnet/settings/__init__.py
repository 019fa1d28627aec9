"""The settings of commands: flags, YAML files and recipes in, checked settings and exit codes out.

This package never knows what a setting is for.
"""
