"""Does PyTorch compute, compile, train on several ranks and save rightly, on a CPU?"""

import importlib
import importlib.util
import math
import os
from collections.abc import Mapping, Sequence

from stackrt.checks import ranks
from stackrt.checks.context import Context
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped

MOST_ERROR = 1e-6
"""Of gradients, relative to the largest: sums in another order differ by a few parts in 10^8."""
NO_COMPILER = "this image has no compiler: what it is for compiles nothing"


@check(
    "gloo-ddp",
    frameworks=("torch",),
    timeout=120.0,
    proves="two ranks train as one process would",
    criterion=f"gradients of two DDP ranks over gloo equal the serial ones to {MOST_ERROR:g}",
)
def gloo_ddp(context: Context) -> Result:
    """Compare two ranks' gradients with those of one process."""
    try:
        return judge_training(
            ranks.run(context, "stackrt.checks.torch_ranks:train", 2, arguments={"kinds": ["ddp"]}, timeout=110)
        )
    except ranks.RanksError as error:
        return ranks_failed(error)


def ranks_failed(error: ranks.RanksError) -> Result:
    """The result of ranks that did not get to the end."""
    return failed(
        str(error),
        expected="every rank gets to the end",
        todo="see the last lines of the output; look at memory, /dev/shm and the loopback interface",
    )


def judge_training(answers: Sequence[Mapping[str, float]], most: float = MOST_ERROR) -> Result:
    """Judge what each rank measured: `NAME_error` for each way of training, and `shards_lost`."""
    # Not max(): it would pass over what is not a number.
    worst = {name: sorted((answer[name] for answer in answers), key=badness)[-1] for name in answers[0]}
    errors = {name.removesuffix("_error"): value for name, value in worst.items() if name.endswith("_error")}
    wrong = [f"{name} differs by {value:.1e}" for name, value in errors.items() if not value <= most]
    if worst.get("shards_lost"):
        wrong.append(f"{worst['shards_lost']:g} tensors of a sharded checkpoint come back changed")
    if wrong:
        return failed(
            "; ".join(wrong), expected=f"equal to one process to {most:g}", **worst,
            todo="memory, a GPU or the network computes wrongly: repeat it, then leave out one node after the other",
        )  # fmt: skip
    largest = max(errors.values())
    return passed(f"{len(answers)} ranks equal one process to {largest:.0e} ({', '.join(errors)})", **worst)


def badness(value: float) -> float:
    """A number to sort by; what is not a number is the worst."""
    return math.inf if math.isnan(value) else value


@check(
    "compile-cpu",
    tags=("compiler",),
    frameworks=("torch",),
    timeout=180.0,
    proves="torch.compile works: there is a C++ compiler, and its code computes rightly",
    criterion="a compiled function equals the plain one, from machine code made just now",
)
def compile_cpu(context: Context) -> Result:
    """Compile a function in an empty cache."""
    if context.image and not context.image.compiler:
        return skipped(NO_COMPILER)
    made = context.scratch / "compiled"
    # One process, no trial of every vector instruction set, and no headers compiled for later: these take five times
    # as long as the rest.
    os.environ |= {
        "TORCHINDUCTOR_CACHE_DIR": str(made), "TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_VEC_ISA_OK": "0",
        "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
    }  # fmt: skip
    import torch

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) * 2 + torch.cos(x)

    x = torch.linspace(-3, 3, 1001)
    try:
        found = torch.compile(function, fullgraph=True)(x)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return failed(
            f"torch.compile fails: {lines[0]}", expected="a C++ compiler that works",
            todo=f"see that {os.environ.get('CXX', 'g++')} runs (CXX names it), or install g++",
        )  # fmt: skip
    libraries = len(list(made.rglob("*.so")))
    difference = float((found - function(x)).abs().max())
    if not difference < 1e-5 or not libraries:
        return failed(
            f"the compiled function differs by {difference:.1e}, and {libraries} libraries were made",
            expected="the plain function's values", todo="try another compiler: set CXX",
        )  # fmt: skip
    return passed(f"a compiled function equals the plain one ({libraries} libraries made)", libraries=libraries)


@check(
    "checkpoint",
    frameworks=("torch",),
    timeout=60.0,
    proves="what is saved comes back as it was, and training goes on from it bit by bit",
    criterion="weights, optimizer state and the next step are equal to the last bit",
)
def checkpoint(context: Context) -> Result:
    """Save after a step, load into another model, and take the next step in both."""
    import torch

    def start(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
        return model, torch.optim.AdamW(model.parameters(), lr=0.01)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.linspace(-1, 1, 8 * 64).view(8, 64)).square().mean().backward()
        optimizer.step()

    def bits(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[bytes]:
        moments = [value for state in optimizer.state.values() for value in state.values()]
        return [tensor.detach().numpy().tobytes() for tensor in [*model.parameters(), *moments]]

    first, second, file = start(1), start(2), context.scratch / "checkpoint.pt"
    step(*first)
    torch.save({"model": first[0].state_dict(), "optimizer": first[1].state_dict()}, file)
    saved = torch.load(file, weights_only=True)
    second[0].load_state_dict(saved["model"])
    second[1].load_state_dict(saved["optimizer"])
    loaded = bits(*first) == bits(*second)
    step(*first)
    step(*second)
    if not loaded or bits(*first) != bits(*second):
        return failed(
            "a checkpoint comes back changed" if not loaded else "the step after loading differs",
            expected="equal to the last bit", todo="look at the disk and memory of this machine; repeat on another",
        )  # fmt: skip
    return passed(f"{file.stat().st_size} bytes come back as they were, and the next step is the same")


@check(
    "torchvision",
    frameworks=("torch",),
    timeout=60.0,
    proves="torchvision, where it is installed, is of the same build as PyTorch",
    criterion="its compiled operators load: of two boxes that overlap, non-maximum suppression keeps the better one",
)
def torchvision(_: Context) -> Result:
    """Call a compiled operator. A torchvision of another build says "operator torchvision::nms does not exist"."""
    if not importlib.util.find_spec("torchvision"):
        return skipped("torchvision is not installed")
    import torch

    version, todo = torch.__version__, "install the torchvision that was built with this torch, from the same index"
    try:
        nms = importlib.import_module("torchvision.ops").nms
        boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
        kept = nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5).tolist()
    except (ImportError, OSError, RuntimeError) as error:
        return failed(f"torchvision does not work beside torch {version}: {error}", expected="it does", todo=todo)
    if kept != [1, 2]:
        return failed(f"its suppression keeps the boxes {kept}", expected="the boxes [1, 2]", todo=todo)
    return passed(f"its operators work beside torch {version}")
