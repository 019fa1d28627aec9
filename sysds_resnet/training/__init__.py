"""The training package: state, optimizer, steps, the loop of epochs, checkpoints, and the folder of a run.

It never knows how an image is decoded or how a layer is computed.
"""
