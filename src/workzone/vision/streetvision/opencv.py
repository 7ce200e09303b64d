"""Three operations of OpenCV on 8-bit pictures, written in numpy with its arithmetic, so that it is not needed here.

Resizing and blurring follow its fixed-point code. The colour conversion is in 32-bit floats, where the order of
operations inside a vector instruction can move a value across an integer, that is by one grey level.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_WEIGHT_BITS = 11
_KERNEL_BITS = 8
_Y_OF_BGR = (0.114, 0.587, 0.299)
_CR, _CB, _HALF = 0.713, 0.564, 0.5
_R_OF_CR, _G_OF_CR, _G_OF_CB, _B_OF_CB = 1.403, -0.714, -0.344, 1.773


def resize(picture: Bytes, width: int, height: int) -> Bytes:
    """Bilinear resize without antialias (``cv2.resize``, default interpolation) of (H, W, C) to (height, width, C)."""
    old_height, old_width = picture.shape[:2]
    if (old_height, old_width) == (height, width):
        return picture.copy()
    if (old_height, old_width) == (2 * height, 2 * width):
        # At exactly one half the mean of four pixels is taken.
        p = picture.astype(np.int32)
        return np.asarray((p[::2, ::2] + p[::2, 1::2] + p[1::2, ::2] + p[1::2, 1::2] + 2) >> 2, dtype=np.uint8)
    x0, x1, wx0, wx1 = _weights(old_width, width, clamp=True)
    y0, y1, wy0, wy1 = _weights(old_height, height, clamp=False)
    p = picture.astype(np.int32)
    rows = p[:, x0] * wx0[None, :, None] + p[:, x1] * wx1[None, :, None]
    upper, lower = rows[y0] >> 4, rows[y1] >> 4
    mixed = ((upper * wy0[:, None, None]) >> 16) + ((lower * wy1[:, None, None]) >> 16)
    return np.asarray((mixed + 2) >> 2, dtype=np.uint8)


def _weights(old: int, new: int, *, clamp: bool) -> tuple[NDArray[np.int64], ...]:
    """First and second source index of each of ``new`` places, and their weights in 1/2048."""
    at = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    part = (at - first.astype(np.float32)).astype(np.float32)
    if clamp:
        # Columns beyond an edge take the edge alone; rows keep both weights on the same row, which rounds differently.
        outside = (first < 0) | (first >= old - 1)
        part = np.where(outside, np.float32(0), part).astype(np.float32)
        first = np.clip(first, 0, old - 1)
    scale = np.float32(1 << _WEIGHT_BITS)
    w0, w1 = (np.rint(w * scale).astype(np.int64) for w in (np.float32(1) - part, part))
    return np.clip(first, 0, old - 1), np.clip(first + 1, 0, old - 1), w0, w1


def gaussian_kernel(size: int, sigma: float) -> NDArray[np.int64]:
    """Kernel of odd ``size`` in 1/256 whose entries sum to 256; rounding errors are carried towards the middle."""
    exact = np.array([math.exp(-0.5 * ((i - size // 2) / sigma) ** 2) for i in range(size)])
    exact /= exact.sum()
    kernel = np.zeros(size, dtype=np.int64)
    carried = 0.0
    for i in range(size // 2):
        wanted = float(exact[i]) * (1 << _KERNEL_BITS) + carried
        kernel[i] = kernel[size - 1 - i] = round(wanted)
        carried = wanted - float(kernel[i])
    kernel[size // 2] = (1 << _KERNEL_BITS) - kernel.sum()
    return kernel


def gaussian_blur(picture: Bytes, size: int, sigma: float) -> Bytes:
    """``cv2.GaussianBlur`` of (H, W, C) with a kernel of odd ``size``; edges are mirrored without repeating."""
    kernel = gaussian_kernel(size, sigma)
    half = size // 2
    height, width = picture.shape[:2]
    p = np.pad(picture, ((half, half), (half, half), (0, 0)), mode="reflect").astype(np.int64)
    rows = np.add.reduce([k * p[:, i : i + width] for i, k in enumerate(kernel)])
    both = np.add.reduce([k * rows[i : i + height] for i, k in enumerate(kernel)])
    return np.asarray((both + (1 << 15)) >> 16, dtype=np.uint8)


def bgr_to_ycrcb(bgr: Floats) -> Floats:
    """``cv2.COLOR_BGR2YCR_CB`` on float32 (H, W, 3): the chroma centre is 0.5 whatever the range of the values."""
    b, g, r = (bgr[..., i] for i in range(3))
    y = b * np.float32(_Y_OF_BGR[0]) + g * np.float32(_Y_OF_BGR[1]) + r * np.float32(_Y_OF_BGR[2])
    cr = (r - y) * np.float32(_CR) + np.float32(_HALF)
    cb = (b - y) * np.float32(_CB) + np.float32(_HALF)
    return np.stack([y, cr, cb], axis=-1)


def ycrcb_to_bgr(ycrcb: Floats) -> Floats:
    """``cv2.COLOR_YCR_CB2BGR`` on float32 (H, W, 3)."""
    y, cr, cb = ycrcb[..., 0], ycrcb[..., 1] - np.float32(_HALF), ycrcb[..., 2] - np.float32(_HALF)
    b = y + cb * np.float32(_B_OF_CB)
    g = y + cr * np.float32(_G_OF_CR) + cb * np.float32(_G_OF_CB)
    r = y + cr * np.float32(_R_OF_CR)
    return np.stack([b, g, r], axis=-1)
