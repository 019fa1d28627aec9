"""The program's dealings with the operating system: files, folders, processes, terminals.

This package knows nothing of images, networks or SystemDS.
"""
