"""The Java virtual machine that SystemDS runs in: its start, files and end, and this package's classes in it.

It never knows what a program computes.
"""
