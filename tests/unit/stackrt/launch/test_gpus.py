import pytest

from stackrt.launch.gpus import visible

GPUS = ["GPU-aa11", "GPU-aa22", "GPU-bb33"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (None, GPUS),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", ["GPU-aa11"]),
        ("2, 0", ["GPU-bb33", "GPU-aa11"]),
        ("0,7,1", ["GPU-aa11"]),
        ("0,-1,1", ["GPU-aa11"]),
        ("1,1", []),
        ("GPU-bb", ["GPU-bb33"]),
        ("GPU-aa", []),
        ("GPU-aa2,GPU-bb33", ["GPU-aa22", "GPU-bb33"]),
        ("MIG-1,MIG-2", ["MIG-1", "MIG-2"]),
    ],
)
def test_visible(selection: str | None, expected: list[str]) -> None:
    assert visible(selection, GPUS) == expected


def test_a_machine_without_gpus_has_none() -> None:
    assert visible(None, []) == []
    assert visible("0,MIG-1", []) == []
