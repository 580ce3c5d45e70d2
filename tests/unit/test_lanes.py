from pathlib import Path

from tests.commands import ROOT
from tests.lanes import COLD_SECONDS, QUIET, Lane, lane_of, load, startable


def test_a_file_belongs_to_the_longest_path_that_holds_it() -> None:
    assert lane_of("tests/cluster/test_submit.py") == "cluster"
    assert lane_of("tests/cluster/test_training.py") == "workloads"
    assert lane_of("tests/integration/images/pytorch/test_devel.py") == "images"
    assert lane_of("tests/integration/test_build.py") == "builds"
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


def test_a_lane_that_waits_for_images_keeps_its_place_for_a_while() -> None:
    images, train, launch = Lane("images", "", 30, built=True), Lane("train", "", 20), Lane("launch", "", 10)
    waiting = [images, train, launch]
    assert startable(waiting, 2, built=False, seconds=1) == [train]
    assert startable([images, launch], 1, built=False, seconds=1) == []
    assert startable([images, launch], 1, built=True, seconds=12) == [images]
    assert startable([images, launch], 1, built=False, seconds=COLD_SECONDS + 1) == [launch]
    assert startable(waiting, 0, built=True, seconds=12) == []
