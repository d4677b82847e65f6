"""Near-duplicate images by 64-bit difference hash: numpy alone, no training.

    python examples/near_duplicates.py

Each image becomes 64 bits. A bit tells whether a cell of an 8 x 9 grid is brighter than
its right neighbour. Copies that were scaled, brightened or compressed keep nearly all
bits, so pairs within a few bits are near-duplicates. The images are made here.
"""

import numpy as np

import ssbhash


def difference_hash(images: np.ndarray) -> np.ndarray:
    """Hash images [n, height, width] to packed codes [n, 8]; sizes are multiples of 8 and 9."""
    n, height, width = images.shape
    cells = images.reshape(n, 8, height // 8, 9, width // 9).mean(axis=(2, 4))
    return ssbhash.pack((cells[:, :, 1:] > cells[:, :, :-1]).reshape(n, 64))


rng = np.random.default_rng(0)
coarse = rng.normal(size=(2000, 8, 9))
images = coarse.repeat(4, axis=1).repeat(4, axis=2)  # 2,000 pictures of 32 x 36
copied = rng.choice(2000, 100, replace=False)
copies = 0.8 * images[copied] + 0.1 + rng.normal(scale=0.3, size=(100, 32, 36))

codes = difference_hash(np.concatenate([images, copies]))
first, second, distances = ssbhash.pairs_within(codes, radius=6)
groups = ssbhash.groups_within(codes, radius=6)  # chains of pairs, in little memory
true = {(int(original), 2000 + copy) for copy, original in enumerate(copied)}
found = true & set(zip(first.tolist(), second.tolist(), strict=True))

print(f"{len(codes):,} images, {len(codes) * (len(codes) - 1) // 2:,} pairs")
print(f"{len(first)} pairs within 6 bits, {len(found)} of the {len(true)} copies")
print("bits apart:", np.bincount(distances, minlength=7).tolist(), "for 0 ... 6")
print(f"{len(np.unique(groups)):,} groups")
