"""What the program asks of the operating system: files, folders, processes, terminals.

It knows nothing of images, networks or SystemDS.
"""
