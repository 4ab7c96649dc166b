"""How many rows and columns small panels take."""


def grid_shape(count: int, most: int = 3) -> tuple[int, int]:
    """Rows and columns for `count` panels, at most `most` in a row, rows filled as evenly as they can be.

    >>> grid_shape(2), grid_shape(4), grid_shape(5)
    ((1, 2), (2, 2), (2, 3))
    """
    rows = -(-count // most)
    return rows, -(-count // rows)
