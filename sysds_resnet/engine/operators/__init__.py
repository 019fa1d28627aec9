"""DML functions that run as one operator of ours: which they are, and the Java that is compiled for them.

It knows the layers' formulas by their DML, and never a network.
"""
