"""What to look for where a run's nodes are placed all at once or not at all. Pure."""

from __future__ import annotations

import re

from stackctl.runs import holders
from stackctl.runs.evidence import Facts, Found
from stackctl.runs.objects import Pod


def unplaced(facts: Facts) -> Found | None:
    """The scheduler has no room for all nodes, and so places none."""
    waiting = _waiting(facts)
    if not facts.group or not waiting:
        return None
    # Of the group it is said that it does not fit, of a pod of it what is missing.
    others = (pod.unschedulable for pod in waiting if facts.group not in pod.unschedulable)
    said = list(dict.fromkeys([facts.group, *filter(None, others)]))
    lacking = list(dict.fromkeys(re.findall(r"\d+ Insufficient [^,. ]+(?:[./][^,. ]+)*", " ".join(said))))
    resources = list(dict.fromkeys(text.split()[-1] for text in lacking))
    about = facts.job.metadata
    held = holders.told(facts.placed, about.name, about.namespace, resources)
    told = "; ".join(filter(None, [", ".join(lacking), held]))
    return Found(f"{facts.job.spec.completions} nodes" + (f" ({told})" if told else ""), said[:3])


def broken(facts: Facts) -> Found | None:
    """Nodes wait to be placed with others that have ended well, and will not come again."""
    done = [pod for pod in facts.newest if pod.status.phase == "Succeeded"]
    waiting = _waiting(facts)
    if not done or not waiting:
        return None
    return Found(f"{_numbers(waiting)} to be placed together with {_numbers(done)}")


def _waiting(facts: Facts) -> list[Pod]:
    return [pod for pod in facts.stuck if pod.spec.scheduling_group.pod_group_name and not pod.spec.node_name]


def _numbers(pods: list[Pod]) -> str:
    shown = ", ".join(str(pod.index) for pod in pods[:10]) + (", …" if len(pods) > 10 else "")
    return f"node{'s' if len(pods) > 1 else ''} {shown}"
