"""The DML functions that run as one operator of this package, and the Java that is compiled for them.

It knows the formulas of the layers in DML, and never a network.
"""
