"""The image for development: its tools answer, a debugger attaches across a published port, VS Code's files fit it."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stackctl.images import catalog
from tests.commands import PREFIX, ROOT, STACKCTL, environment
from tests.support.images import steps

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1200)]


@contextlib.contextmanager
def for_development(variant: str) -> Iterator[str]:
    """The image for development of pytorch, gone afterwards."""
    argv = [STACKCTL, "build", "pytorch", "--variant", variant, "--devel"]
    done = subprocess.run(argv, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    name = f"{PREFIX}pytorch:{variant}-devel"
    assert done.stdout.startswith(f"{name} ")
    try:
        yield name
    finally:
        subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=True)


@pytest.fixture(scope="module")
def devel(image: str) -> Iterator[str]:
    """The image for development of pytorch on the CPU."""
    with for_development("cpu") as name:
        yield name


def in_image(image: str, *words: str) -> str:
    argv = ["docker", "run", "--rm", "--network", "none", image, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_tools_answer_and_nothing_listens_for_logins(devel: str) -> None:
    commands = ["py-spy --version", "ipython --version", "jupyter lab --version", "gdb --version", "g++ --version"]
    commands += ["git --version", "python3-config --includes", "pip --version", "ninja --version"]
    in_image(devel, "sh", "-ec", "; ".join(commands))
    assert in_image(devel, "sh", "-c", "id -u; command -v sshd ssh-agent sudo || true") == "1000\n"


def test_it_is_the_runtime_image_with_more_on_top(image: str, devel: str) -> None:
    runtime, whole = steps(image), steps(devel)
    assert whole[: len(runtime)] == runtime
    assert len(whole) > len(runtime)


def test_an_extension_of_python_is_compiled(devel: str) -> None:
    source = """
#include <Python.h>
static PyModuleDef made = {PyModuleDef_HEAD_INIT, "made"};
extern "C" PyObject *PyInit_made() { return PyModule_Create(&made); }
"""
    script = f"""cd /tmp; g++ -shared -fPIC $(python3-config --includes) -x c++ -o made.so - <<'END'{source}END
python -c 'import made; print(made.__file__)'"""
    assert in_image(devel, "sh", "-ec", script) == "/tmp/made.so\n"


@pytest.mark.needs("cuda-images")
def test_nvcc_compiles_and_links_for_every_architecture_that_the_image_claims() -> None:
    (target,) = catalog.targets(catalog.load(), "pytorch", "cuda")
    wanted = [name.replace(".", "") for name in target.variant.gpu_architectures]
    flags = " ".join(f"-gencode arch=compute_{name},code=sm_{name}" for name in wanted)
    source = "__global__ void twice(float *x) { *x *= 2; }\nint main() { twice<<<1, 1>>>(nullptr); }"
    script = f"""cd /tmp; nvcc {flags} -x cu -o twice - <<'END'
{source}
END
grep --text --only-matching 'sm_[0-9]*' twice | sort --unique"""
    with for_development("cuda") as image:
        assert set(in_image(image, "sh", "-ec", script).split()) >= {f"sm_{name}" for name in wanted}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one wheel, of a package `tiny`, for containers without a network."""
    folder = tmp_path_factory.mktemp("wheels")
    about = "tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "size = 1\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", f"tiny.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    for path in (folder.parent, folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


@pytest.mark.parametrize("user", ["1000:1000", "54321:54321"])
def test_a_notebooks_user_installs_packages_without_root(devel: str, wheels: Path, user: str) -> None:
    script = "pip install --quiet --no-index /wheels/*.whl && python -c 'import tiny; print(tiny.size)'"
    argv = ["docker", "run", "--rm", "--network", "none", "--user", user, "--volume", f"{wheels}:/wheels:ro", devel]
    done = subprocess.run([*argv, "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
    spoil = [*argv, "sh", "-c", "rm -r /opt/venv/lib/python3*/site-packages/torch"]
    assert subprocess.run(spoil, capture_output=True, check=False).returncode != 0


def test_packages_in_an_image_from_ours(image: str, wheels: Path) -> None:
    """With pip and with uv, as root and without a network; what root leaves in caches is not the user's."""
    name = f"{PREFIX}from:cpu"
    (wheels / "Dockerfile").write_text(f"""\
FROM {image}
USER 0
RUN --mount=type=bind,target=/src pip install --quiet --no-index /src/*.whl \\
    && python -c "import os, pathlib; p = pathlib.Path.home() / '.cache' / 'mine'; p.mkdir(parents=True); print(p)"
USER 1000:1000
""")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv is not None
    try:
        build = ["docker", "build", "--quiet", "--network", "none", "--tag", name, str(wheels)]
        subprocess.run(build, capture_output=True, text=True, check=True)
        script = "mkdir /home/stack/.cache/mine && python -c 'import tiny; print(tiny.size)'"
        assert in_image(name, "sh", "-c", script) == "1\n"
        argv = ["docker", "run", "--rm", "--network", "none", "--user", "0", "--volume", f"{wheels}:/wheels:ro"]
        argv += ["--volume", f"{uv}:/usr/local/bin/uv:ro", image, "sh", "-c"]
        script = "uv pip install --quiet --no-index /wheels/*.whl && python -c 'import tiny; print(tiny.size)'"
        done = subprocess.run([*argv, script], capture_output=True, text=True, check=False)
        assert done.stdout == "1\n", done.stderr
    finally:
        subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)


def test_a_profile_is_taken(devel: str) -> None:
    program = "import time; end = time.monotonic() + 2\nwhile time.monotonic() < end: pass"
    words = ["py-spy", "record", "--format", "raw", "--output", "/dev/stdout", "--duration", "1", "--", "python", "-c"]
    assert "<module> (<string>:2)" in in_image(devel, *words, program)


class Debugger:
    """The few messages of the Debug Adapter Protocol that an editor sends to attach.

    Source: https://microsoft.github.io/debug-adapter-protocol/specification
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._out, self._in = connection.makefile("wb"), connection.makefile("rb")
        self._sent = 0

    def close(self) -> None:
        self._in.close()
        with contextlib.suppress(OSError):
            self._out.close()
        self._connection.close()

    def send(self, command: str, **arguments: Any) -> None:
        self._sent += 1
        body = json.dumps({"seq": self._sent, "type": "request", "command": command, "arguments": arguments}).encode()
        self._out.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._out.flush()

    def until(self, **wanted: Any) -> dict[str, Any]:
        """Read on to the message that has these fields.

        Raises:
            ConnectionError: The other end has gone, or is not there yet.
        """
        while True:
            header = self._in.readline()
            if not header:
                raise ConnectionError("no debugger at the other end")
            self._in.readline()
            message: dict[str, Any] = json.loads(self._in.read(int(header.split(b":")[1])))
            if all(message.get(key) == value for key, value in wanted.items()):
                return message


def attach(port: int) -> Debugger:
    """Connect as soon as the program listens: the engine opens the port before that."""
    for _ in range(120):
        debugger = Debugger(socket.create_connection(("127.0.0.1", port), timeout=60))
        try:
            debugger.send("initialize", adapterID="debugpy")
            debugger.until(command="initialize", success=True)
            return debugger
        except ConnectionError:
            debugger.close()
            time.sleep(0.5)
    raise AssertionError("the program does not listen for a debugger")


def test_a_debugger_attaches_and_stops_at_a_breakpoint(devel: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "train.py").write_text("loss = 2.5\nprint('loss', loss)\n")
    argv = ["docker", "run", "--detach", "--publish", "127.0.0.1::5678", "--volume", f"{tmp_path}:/workspace:ro", devel]
    argv += ["python", "-Xfrozen_modules=off", "-m", "debugpy", "--listen", "0.0.0.0:5678", "--wait-for-client"]
    container = subprocess.run([*argv, "train.py"], capture_output=True, text=True, check=True).stdout.strip()
    try:
        where = subprocess.run(["docker", "port", container, "5678"], capture_output=True, text=True, check=True).stdout
        with contextlib.closing(attach(int(where.rpartition(":")[2]))) as debugger:
            mapping = [{"localRoot": str(tmp_path), "remoteRoot": "/workspace"}]
            debugger.send("attach", pathMappings=mapping, justMyCode=True)
            debugger.until(event="initialized")
            debugger.send("setBreakpoints", source={"path": str(tmp_path / "train.py")}, breakpoints=[{"line": 2}])
            debugger.send("configurationDone")
            thread = debugger.until(event="stopped")["body"]["threadId"]
            debugger.send("stackTrace", threadId=thread)
            frame = debugger.until(command="stackTrace", success=True)["body"]["stackFrames"][0]
            assert (frame["source"]["path"], frame["line"]) == (str(tmp_path / "train.py"), 2)
            debugger.send("evaluate", expression="loss", frameId=frame["id"])
            assert debugger.until(command="evaluate", success=True)["body"]["result"] == "2.5"
            debugger.send("continue", threadId=thread)
            debugger.until(event="terminated")
            argv = ["docker", "wait", container]
            ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        assert ended.stdout == "0\n"
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", container], capture_output=True, check=True)


@pytest.mark.parametrize(("name", "variant"), [("devcontainer.json", "cpu"), ("cuda/devcontainer.json", "cuda")])
def test_the_devcontainer_builds_the_image_for_development(name: str, variant: str) -> None:
    path = ROOT / ".devcontainer" / name
    build = json.loads(path.read_text())["build"]
    dockerfile = (path.parent / build["dockerfile"]).resolve()
    assert dockerfile == ROOT / "images" / "dockerfiles" / f"pytorch-{variant}.Dockerfile"
    assert (path.parent / build["context"]).resolve() == ROOT
    assert f" AS {build['target']}\n" in dockerfile.read_text()
