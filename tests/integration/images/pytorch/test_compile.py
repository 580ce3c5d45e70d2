"""torch.compile works in the runtime image: the compiler and the headers that it calls are there."""

from __future__ import annotations

import subprocess

import pytest

pytestmark = pytest.mark.needs("docker")

SCRIPT = """
import torch
from torch._inductor import metrics
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))
x = torch.randn(5, 8)
torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))
print("kernels", metrics.generated_kernel_count)
"""


def test_a_compiled_function_equals_an_eager_one(image: str) -> None:
    # A read-only image and another user than its own: what is compiled goes to /tmp.
    argv = ["docker", "run", "--rm", "--network", "none", "--read-only", "--user", "4242:4242"]
    argv += ["--tmpfs", "/tmp:mode=1777,exec", image, "python", "-c", SCRIPT]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.removeprefix("kernels ")) > 0, "nothing was compiled"
