"""Images as rows of tables: what is taken for images, and the shapes that rows have."""

import numpy as np
import pytest
from refusals import refusal

from sysds_resnet.images.rows import shape_of_images, to_rows


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5, 4, 6, 3), (4, 6, 3)), ((5, 4, 6), (4, 6, 1)), ((0, 4, 6, 3), (4, 6, 3)), ((5, 4, 0, 3), (4, 0, 3))],
)
def test_images_become_rows_of_their_values(shape, expected):
    images = np.arange(np.prod(shape)).reshape(shape)
    rows, found = to_rows(images)
    assert found == expected
    np.testing.assert_array_equal(rows, images.reshape(shape[0], int(np.prod(expected))))
    listed, found = to_rows(images.tolist())
    if images.size:
        assert found == expected and np.array_equal(listed, rows)


@pytest.mark.parametrize("given", [np.zeros((5, 12)), np.zeros(5), np.zeros((1, 2, 3, 4, 5))])
def test_what_is_no_images_is_given_back(given):
    assert to_rows(given) == (given, None)


@pytest.mark.parametrize(
    ("values", "image_shape", "given", "expected"),
    [
        (64, None, None, (8, 8, 1)),
        (64, None, (4, 4, 4), (4, 4, 4)),
        (60, None, (4, 5, 3), (4, 5, 3)),
        (60, (10, 6), None, (10, 6, 1)),
        (60, [4, 5, 3], None, (4, 5, 3)),
        (60, (4, 5, 3), (4, 5, 3), (4, 5, 3)),
        (60, (1, -1), None, (1, 60, 1)),
        (60, (-1, 2, 3), None, (10, 2, 3)),
        (60, (6, 10), (6, 10, 1), (6, 10, 1)),
    ],
)
def test_shapes_that_fit_are_taken(values, image_shape, given, expected):
    assert shape_of_images(values, image_shape, given) == expected


@pytest.mark.parametrize(
    ("values", "image_shape", "given", "found"),
    [
        (60, None, None, "X: found rows of 60 values, expected images, or rows of square grey ones; set"),
        (60, (8, 8), None, "image_shape: found (8, 8) for rows of 60 values, expected their (H, W) or"),
        (60, (60,), None, "image_shape: found (60,) for rows of 60 values"),
        (60, 60, None, "image_shape: found 60 for rows of 60 values"),
        (60, (1, 3, 4, 5), None, "image_shape: found (1, 3, 4, 5) for rows"),
        (60, (-1, -1), None, "image_shape: found (-1, -1) for rows"),
        (60, (7, -1), None, "image_shape: found (7, -1) for rows"),
        (60, "8x8", None, "image_shape: found '8x8' for rows"),
        (60, (2.5, 24), None, "image_shape: found (2.5, 24) for rows"),
        (60, (5, 4, 3), (4, 5, 3), "image_shape: found (5, 4, 3) for images of shape (4, 5, 3)"),
    ],
)
def test_shapes_that_do_not_fit_are_one_line_and_a_value_error(values, image_shape, given, found):
    assert found in refusal(shape_of_images, values, image_shape, given)
    with pytest.raises(ValueError, match="found"):
        shape_of_images(values, image_shape, given)
