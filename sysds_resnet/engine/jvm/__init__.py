"""The Java virtual machine that SystemDS runs in: found, started, watched, and loaded with our own classes.

It never knows what a program computes.
"""
