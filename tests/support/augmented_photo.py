"""A photo for augmentations, how strong they are, and the random numbers that they draw."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((64, 48))


STRENGTHS = {"brightness": 0.4, "contrast": 1.5, "saturation": 0.2, "hue": 0.5}


FILL = np.array([124, 116, 104], dtype=np.uint8)


def generator(seed):
    return np.random.Generator(np.random.PCG64(seed))
