"""How much memory the images of a case take beside the network, told from their headers before any voxel is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from brainunet.data.volumes import header_and_affine, spacing_of
from brainunet.prediction.grid import needs_resampling, shape_at_1mm

# Bytes of a voxel on the grid of the files, beside the picture that is kept.
WHILE_READING: Final = 2  # where the brain is: in this image, and in all of them
MAPPED_BACK: Final = (
    12  # brain, labels before and after the small parts went, entropy, a mask and its parts' numbers; or, later,
)
# brain, labels, entropy and the probabilities of one label

FLOAT32: Final = 4


def bytes_beside(case_id: str, paths: Sequence[Path]) -> int:
    """An estimate of the most that reading, and mapping back, hold of a case's images.

    Raises:
        DataError: a file that is no volume, or too many voxels at 1 mm.
    """
    headers = [header_and_affine(path) for path in paths]
    shape, spacing = headers[0][0].get_data_shape(), spacing_of(headers[0][1])
    voxels = int(math.prod(shape))
    kept, while_read = [], []
    for header, _ in headers:
        stored = header.get_data_dtype().itemsize
        made = stored if header.get_slope_inter() in ((None, None), (1.0, 0.0)) else FLOAT32
        kept.append(min(made, FLOAT32))
        while_read.append(stored + (made if made == stored else 2 * made))  # as stored, and in our order of axes
    reading: int = voxels * (kept[0] + WHILE_READING + max(while_read))
    if needs_resampling(spacing):
        at_1mm = math.prod(shape_at_1mm(case_id, shape, spacing))
        reading += FLOAT32 * (len(paths) * at_1mm + 2 * max(at_1mm, round(voxels * min(1.0, *spacing))))
    else:
        reading += voxels * sum(kept[1:])
    return int(max(reading, voxels * (kept[0] + MAPPED_BACK)))
