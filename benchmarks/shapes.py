"""The models whose variables are updated."""

from __future__ import annotations

Shape = tuple[int, ...]


def transformer(layers: int, width: int, vocabulary: int) -> list[Shape]:
    """An embedding, and per layer four attention kernels, two kernels with biases, two norms with scale and offset."""
    layer = [(width, width)] * 4 + [(width, 4 * width), (4 * width,), (4 * width, width), (width,)] + [(width,)] * 4
    return [(vocabulary, width), *layer * layers]


SHAPES: dict[str, list[Shape]] = {
    "42M": transformer(12, 512, 8000),
    "10M": transformer(3, 512, 2000),
    "tiny": [(16,) if i % 2 else (8, 16) for i in range(145)],
    "embedding": [(80_000, 256), (256, 256), (256,), (256, 256), (256,), (256, 1000), (1000,)],
}
"""42 million parameters in 145 variables, 10 million in 37, 145 tiny variables, and one large embedding."""


def size(shapes: list[Shape]) -> int:
    """Number of parameters."""
    total = 0
    for shape in shapes:
        count = 1
        for n in shape:
            count *= n
        total += count
    return total
