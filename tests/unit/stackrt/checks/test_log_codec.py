import json
import random

from stackrt.checks.log_codec import WIDTH, Unpacked, pack

REPORT = {"checks": [{"found": str(random.Random(number).random())} for number in range(2000)]}


def test_a_report_comes_whole_through_a_log() -> None:
    lines = list(pack(REPORT))
    assert len(lines) > 1
    assert max(map(len, lines)) < WIDTH + 100
    unpacked = Unpacked()
    assert unpacked.text == ""
    assert not unpacked.take("pass  lock-match")
    for line in lines:
        assert unpacked.text == ""
        assert unpacked.take(line)
    assert json.loads(unpacked.text) == REPORT


def test_a_report_that_is_not_whole_is_none() -> None:
    first, *_, last = pack(REPORT)
    unpacked = Unpacked()
    for line in (first, last):
        assert unpacked.take(line)
    assert unpacked.text == ""


def test_a_later_report_takes_the_place_of_one_that_was_cut() -> None:
    unpacked = Unpacked()
    for line in [*list(pack(REPORT))[:2], *pack({"checks": []})]:
        unpacked.take(line)
    assert json.loads(unpacked.text) == {"checks": []}


def test_other_lines_with_the_mark_are_left_alone() -> None:
    assert not Unpacked().take("stackrt.checks.report is a module")
    assert not Unpacked().take("stackrt.checks.report")
