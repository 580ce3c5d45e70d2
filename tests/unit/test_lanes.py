from pathlib import Path

from tests.commands import ROOT
from tests.lanes import QUIET, lane_of, load


def test_a_file_belongs_to_the_longest_path_that_holds_it() -> None:
    assert lane_of("tests/cluster/test_submit.py") == "cluster"
    assert lane_of("tests/integration/images/pytorch/test_devel.py") == "images"
    assert lane_of("tests/integration/test_build.py") == "images"
    assert lane_of("tests/integration/launch/test_happy.py") == "launch"
    assert lane_of("tests/integration/test_new.py") == "runs", "a new file needs no row"


def test_every_path_of_a_lane_is_there() -> None:
    named = [Path(path) for lane in load().values() for path in lane.tests]
    assert len(named) == len(set(named))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_only_the_quiet_lane_runs_alone_and_has_no_paths() -> None:
    assert [lane.name for lane in load().values() if lane.alone] == [QUIET]
    assert load()[QUIET].tests == ()
    assert all(lane.minutes > 0 for lane in load().values())
