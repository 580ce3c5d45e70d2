from stackrt.versions import numbers


def test_versions_compare_by_their_numbers() -> None:
    assert numbers("580.95.05") == (580, 95, 5)
    assert numbers("1000.1") > numbers("595.10") > numbers("595") > numbers("580.82.07")
    assert numbers("") == ()
