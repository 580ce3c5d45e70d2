"""The trainer `keras` in its image: numbers against a plain loop's, files in a new process, kills, bad input."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import ROOT, Stackctl
from tests.support.images import in_image
from tests.support.plain_process import KERAS_STEPS, keras_apart

KILLS, SEED = int(os.environ.get("STACK_TEST_KILLS", "3")), 20_240_501

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800 + KILLS * 60)]

SCRIPTS = Path(__file__).parent / "keras"


@pytest.fixture(scope="module")
def image(built: Callable[[str], str]) -> str:
    return built("tensorflow")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that the first test trains, and the next one predicts with."""
    return tmp_path_factory.mktemp("keras") / "out"


def test_two_devices_train_as_a_plain_loop_and_a_new_process_reads_every_form(
    image: str, stackctl: Stackctl, out: Path
) -> None:
    words = ("run", "keras", "--on", "compose", "--out", str(out), "--", "--devices", "2", "--profile", "20:2")
    done = stackctl(*words, *KERAS_STEPS, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((out / "result.json").read_text())
    assert (result["workload"], result["devices"], result["steps"], result["world_size"]) == ("keras", 2, 30, 1)
    assert result["last_train_loss"] < result["first_train_loss"]
    assert f"accuracy     {result['accuracy']:.3f}" in done.stdout
    assert list((out / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))
    with gzip.open(out / "profile" / "trace.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    assert any(event["ph"] == "X" and event["dur"] > 0 and "Conv2D" in event["name"] for event in events)
    assert not list(out.glob(".*"))
    for name in ("predictions.png", "confusion.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    found = keras_apart(image, out)
    assert found.pop("weights") <= 1e-5
    assert max(found.values()) <= 1e-6, found


def test_predictions_and_what_cannot_be_predicted(image: str, out: Path) -> None:
    if not (out / "model.keras").exists():
        pytest.skip("there is no model: the test before this one trains it")
    before = (out / "model.keras").read_bytes()
    found = json.loads(in_image(image, out, "python", "/workspace/inputs.py", scripts=SCRIPTS, timeout=600))
    (one,) = json.loads(found.pop("one")[1])
    batch = json.loads(found.pop("batch")[1])
    assert [row["picture"] for row in batch] == ["0", "1", "2", "3", "/tmp/made/right.png"]
    assert batch[3]["probabilities"] == pytest.approx(one["probabilities"], abs=1e-6)
    assert (batch[4]["label"], one["right"]) == (None, one["label"] == one["predicted"])
    assert found.pop("drawn")[0] == 0
    unchanged, size = found.pop("the picture")
    assert unchanged
    assert min(size) > 50
    wanted = {
        "an index out of range": "--predict 261: the test pictures of digits are 0 to 260",
        "a negative index": "--predict -1: the test pictures of digits are 0 to 260",
        "another size": "it is 9 x 7 pixels, and the model takes 8 x 8; resize it",
        "no picture": "words.png: it is no picture that Pillow can read, or it is damaged",
        "half a picture": "half.png: it is ",
        "a file that is not there": "absent.png: No such file or directory",
        "a picture that is there": "right.png: is there already; name a new file",
        "no model": "absent.keras: No such file or directory",
        "a model of PyTorch": "is no model of Keras: it is PyTorch's",
        "a model of TensorFlow Lite": "is no model of Keras: it is TensorFlow Lite's",
        "weights alone": "is no model of Keras: it is safetensors, which has weights and no network",
        "another Keras's .keras": "it was saved by Keras 2.",
        "another Keras's .h5": "",  # Keras 3 reads it
        "half a model": "half.keras: is no model of Keras",
        "no SavedModel": "is a folder without saved_model.pb",
        "another set": "there is no data set and no folder of that name; did you mean digits?",
        "a TPU that is not there": "--strategy tpu: no TPU answers at local",
        "an uneven batch": "--batch-size 128: 3 devices cannot share it evenly",
    }
    for case, said in wanted.items():
        code, printed, error = found.pop(case)
        errors = [line for line in error.splitlines() if line.startswith("error: ")]
        assert (code, len(errors)) == ((78, 1) if said else (0, 0)), (case, code, printed, error)
        assert said in "".join(errors), case
        assert "Traceback" not in error, case
    assert not found
    assert (out / "model.keras").read_bytes() == before


def test_kills_at_random_moments_and_a_stop_change_no_bit(image: str, tmp_path: Path) -> None:
    """STACK_TEST_KILLS=50 makes it a long drill."""
    words = ("python", "/workspace/drill.py", str(KILLS), str(SEED))
    done = json.loads(in_image(image, tmp_path, *words, scripts=SCRIPTS, timeout=900 + 60 * KILLS))
    assert done["kills"] == KILLS


def test_the_matrix_product_is_made_on_the_device_that_is_named(image: str, tmp_path: Path) -> None:
    examples = ROOT / "docs" / "examples" / "tensorflow"
    said = in_image(image, tmp_path, "python", "/workspace/matmul.py", "CPU:0", "256", scripts=examples)
    assert re.match(r"256 x 256 on \S*/device:CPU:0: [\d,]+ GFLOP/s, largest error \d\.\de-0[4-9]$", said.strip()), said
    argv = ["docker", "run", "--rm", "--network", "none", "--volume", f"{examples}:/workspace:ro", image, "python"]
    wrong = subprocess.run([*argv, "/workspace/matmul.py", "GPU:7"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (1, "error: there is no GPU:7; this machine has CPU:0")
