"""The kernel that `triton-compile` compiles without a GPU, and that `compile-gpu` runs on one."""

import triton
import triton.language as tl

BLOCK = 256


@triton.jit
def double_and_add(x, y, out, count, size: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = 2 x + y."""
    place = tl.program_id(0) * size + tl.arange(0, size)
    inside = place < count
    tl.store(out + place, 2 * tl.load(x + place, mask=inside) + tl.load(y + place, mask=inside), mask=inside)
