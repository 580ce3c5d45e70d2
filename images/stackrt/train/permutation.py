"""A random order of any number of things that takes no memory: position -> place, one to one."""

import hashlib

ROUNDS = 4  # Luby and Rackoff 1988: four rounds of a random function are a random permutation to any observer
_WORD = (1 << 64) - 1


class Permutation:
    """A bijection of 0, 1, …, count - 1, chosen by a seed.

    A Feistel network permutes a power of four; where it leads outside of `count`, it is walked on until it is back
    inside (Black and Rogaway 2002). The domain is less than four times `count`, so that takes few steps.

    Args:
        count: How many things there are, 1 or more.
        seed: Anything whose `repr` tells two orders apart, as a tuple of numbers.
    """

    def __init__(self, count: int, seed: object) -> None:
        self.count = count
        self._half = max(1, ((count - 1).bit_length() + 1) // 2)
        digest = hashlib.sha256(repr(seed).encode()).digest()
        self._keys = [int.from_bytes(digest[8 * n : 8 * n + 8], "little") for n in range(ROUNDS)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> int:
        """The place of a position.

        Raises:
            IndexError: The position is outside.
        """
        if not 0 <= position < self.count:
            raise IndexError(position)
        place = self._step(position)
        while place >= self.count:
            place = self._step(place)
        return place

    def _step(self, value: int) -> int:
        half = self._half
        mask = (1 << half) - 1
        left, right = value >> half, value & mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        return left << half | right


def _mix(value: int) -> int:
    """Stafford's variant 13 of the 64-bit finalizer: each bit of the result depends on each bit of the value."""
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _WORD
    return value ^ value >> 31
