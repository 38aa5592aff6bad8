"""Five unknowns by least squares with forgetting, in plain floats. Knows nothing of steps or seconds.

For matrices this small a call into a linear algebra library costs more than the arithmetic. Both functions are written
out: a loop over indices costs four times as much.
"""

Vector = tuple[float, float, float, float, float]
Triangle = tuple[
    float, float, float, float, float, float, float, float, float, float, float, float, float, float, float
]
"""The lower triangle of a symmetric matrix, row by row: 00, 10, 11, 20, 21, 22, ..."""

NOTHING: Triangle = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def remember(information: Triangle, row: Vector, keep: float) -> Triangle:
    """A <- keep A + r r'"""
    a00, a10, a11, a20, a21, a22, a30, a31, a32, a33, a40, a41, a42, a43, a44 = information
    r0, r1, r2, r3, r4 = row
    return (
        keep * a00 + r0 * r0,
        keep * a10 + r1 * r0,
        keep * a11 + r1 * r1,
        keep * a20 + r2 * r0,
        keep * a21 + r2 * r1,
        keep * a22 + r2 * r2,
        keep * a30 + r3 * r0,
        keep * a31 + r3 * r1,
        keep * a32 + r3 * r2,
        keep * a33 + r3 * r3,
        keep * a40 + r4 * r0,
        keep * a41 + r4 * r1,
        keep * a42 + r4 * r2,
        keep * a43 + r4 * r3,
        keep * a44 + r4 * r4,
    )


def solve(information: Triangle, ridge: Vector, row: Vector) -> Vector:
    """(A + diag(ridge))^-1 r by L D L' (Golub and Van Loan, 4.1); every ridge is positive, so every pivot is."""
    a00, a10, a11, a20, a21, a22, a30, a31, a32, a33, a40, a41, a42, a43, a44 = information
    r0, r1, r2, r3, r4 = ridge
    d0 = a00 + r0
    l10, l20, l30, l40 = a10 / d0, a20 / d0, a30 / d0, a40 / d0
    d1 = a11 + r1 - l10 * a10
    c21, c31, c41 = a21 - l20 * a10, a31 - l30 * a10, a41 - l40 * a10
    l21, l31, l41 = c21 / d1, c31 / d1, c41 / d1
    d2 = a22 + r2 - l20 * a20 - l21 * c21
    c32, c42 = a32 - l30 * a20 - l31 * c21, a42 - l40 * a20 - l41 * c21
    l32, l42 = c32 / d2, c42 / d2
    d3 = a33 + r3 - l30 * a30 - l31 * c31 - l32 * c32
    l43 = (a43 - l40 * a30 - l41 * c31 - l42 * c32) / d3
    d4 = a44 + r4 - l40 * a40 - l41 * c41 - l42 * c42 - l43 * l43 * d3
    y0, y1, y2, y3, y4 = row
    y1 -= l10 * y0
    y2 -= l20 * y0 + l21 * y1
    y3 -= l30 * y0 + l31 * y1 + l32 * y2
    y4 -= l40 * y0 + l41 * y1 + l42 * y2 + l43 * y3
    x4 = y4 / d4
    x3 = y3 / d3 - l43 * x4
    x2 = y2 / d2 - l32 * x3 - l42 * x4
    x1 = y1 / d1 - l21 * x2 - l31 * x3 - l41 * x4
    return y0 / d0 - l10 * x1 - l20 * x2 - l30 * x3 - l40 * x4, x1, x2, x3, x4
