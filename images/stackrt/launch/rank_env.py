"""The environment of a rank. Pure: layout in, variables out."""

from collections.abc import Mapping

from stackrt.frameworks import FRAMEWORKS
from stackrt.launch import cpus
from stackrt.launch.environment import is_loopback
from stackrt.launch.layout import Layout, NodeLayout
from stackrt.launch.nccl import ANY


def rank_env(base: Mapping[str, str], layout: Layout, node: int, local_rank: int, error_file: str) -> dict[str, str]:
    """Return the whole environment of one rank.

    Args:
        base: the launcher's own environment; the run's token does not pass.
        layout: the agreed job.
        node: index of the rank's node.
        local_rank: index of the rank within its node.
        error_file: where the framework may write an exception that ends the rank.
    """
    env = {name: value for name, value in base.items() if name != "STACK_TOKEN"}
    env |= {"STACK_ATTEMPT": str(layout.attempt), "STACK_DEVICE": layout.device}
    # Without it Python holds back what a rank printed last, and a killed rank takes it to the grave.
    env.setdefault("PYTHONUNBUFFERED", "1")
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        env.setdefault(name, env.get("OMP_NUM_THREADS") or str(layout.nodes[node].threads))
    env |= cpus.sleeping_soon(env, layout.spins)
    if layout.interface:
        env.setdefault("GLOO_SOCKET_IFNAME", layout.interface)
        if layout.device == "cuda" and not is_loopback(layout.address):
            env.setdefault("NCCL_SOCKET_IFNAME", f"={layout.interface}")
    if layout.device == "cuda" and layout.fabric != ANY and local_rank == 0 and len(layout.nodes) > 1:
        # One rank of a node tells which network NCCL takes, in some 50 lines.
        env.setdefault("NCCL_DEBUG_SUBSYS", "INIT,NET")
        env.setdefault("NCCL_DEBUG", "INFO")
    if layout.device == "cuda":
        env.setdefault("NCCL_DEBUG", "WARN")
        # The flight recorder's ring of recent collectives; torch renamed the variable, so both spellings.
        env.setdefault("TORCH_NCCL_TRACE_BUFFER_SIZE", "2000")
        env.setdefault("TORCH_FR_BUFFER_SIZE", "2000")
        env.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    framework = FRAMEWORKS[layout.framework]
    made = framework.environment(layout, node, local_rank)
    if framework.error_file:
        made[framework.error_file] = error_file
    return env | {name: value for name, value in made.items() if name not in env or name not in framework.defaults}


def layout_names() -> set[str]:
    """Return every variable, of all frameworks, that tells a rank its place in the job."""
    smallest = Layout("", 1, "", "cpu", "", 0, (NodeLayout(1, "", (0,)),))
    return {
        name
        for framework in FRAMEWORKS.values()
        for name in framework.environment(smallest, 0, 0)
        if name not in (*framework.defaults, *framework.requests)
    }
