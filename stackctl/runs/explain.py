"""Why a run is where it is: a table of causes, looked for in the cluster's own words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from stackctl.runs import evidence, gang_evidence, refused
from stackctl.runs.admission import Kind
from stackctl.runs.evidence import Facts, Found


class Explanation(NamedTuple):
    """What happened, the evidence in the cluster's own words or the rank's last lines, and what to do.

    `before` says, of a run that waits, why its attempt before this one ended.
    """

    cause: str
    sentence: str
    evidence: Sequence[str] = ()
    advice: str = ""
    before: str = ""

    @property
    def text(self) -> str:
        """All of it, for a person."""
        lines = [self.sentence, *_shown(self.evidence)]
        lines += [f"  {self.advice}"] if self.advice else []
        return "\n".join([*lines, *([f"before that, {self.before}"] if self.before else [])])


def _shown(evidence: Sequence[str]) -> list[str]:
    return [f"  | {line}" for line in evidence]


class Cause(NamedTuple):
    """A row of the table. `look` finds whether it applies; `sentence` takes its `{what}`."""

    name: str
    look: Callable[[Facts], Found | None]
    sentence: str
    advice: str = ""


def explain(facts: Facts) -> Explanation:
    """The first cause of the table that applies."""
    why = _first(CAUSES, facts)
    if why is None:
        return Explanation("unknown", f"{facts.job.metadata.name}: nothing in the cluster tells what happened")
    earlier = _first(_FAILED, facts) if why.cause in _PRESENT else None
    return why._replace(before="\n".join([earlier.sentence, *_shown(earlier.evidence)])) if earlier else why


def _first(causes: Sequence[Cause], facts: Facts) -> Explanation | None:
    for cause in causes:
        found = cause.look(facts)
        if found:
            name = facts.job.metadata.name
            sentence = cause.sentence.format(name=name, what=found.what)
            return Explanation(cause.name, sentence, tuple(found.evidence), cause.advice.format(name=name))
    return None


def _live(causes: Sequence[Cause]) -> Iterator[Cause]:
    """Causes that hold while a run waits; one that has ended has others."""

    def only(look: Callable[[Facts], Found | None]) -> Callable[[Facts], Found | None]:
        return lambda facts: None if facts.job.failing else look(facts)

    return (cause._replace(look=only(cause.look)) for cause in causes)


def _not_started(evident: Callable[..., Callable[[Facts], Found | None]]) -> tuple[Cause, ...]:
    return (
        Cause(
            "no python",
            evident(r"executable file not found", r"no such file or directory"),
            "{name}: the image cannot start the launcher, for {what}",
            "use an image of the stack or one built on it: it needs Python and stackrt",
        ),
        Cause("not started", evident(r"."), "{name}: a container cannot be started, for {what}"),
    )


def _by_admission(kind: Kind, *patterns: str) -> Callable[[Facts], Found | None]:
    """Pods are refused, by a quota or limit range, or for their amounts: in the words of what is known beforehand."""
    look = evidence.not_created(*patterns)

    def read(facts: Facts) -> Found | None:
        found = look(facts)
        said = refused.read(found.evidence[0], pods=facts.job.spec.completions) if found else None
        return Found(said.text, found.evidence) if found and said and said.kind == kind else None

    return read


_SUBMIT_AGAIN = "then remove it and submit it again: stackctl cancel {name}"

_WAITING = (
    Cause(
        "namespace",
        evidence.namespace_ends,
        "{name} ends with its namespace {what}, which is being deleted: Kubernetes makes no pods there any more, "
        "and keeps a pod that failed until there is another in its place",
        "neither goes by itself: `stackctl cancel {name}` removes the run, and sets the namespace free",
    ),
    Cause(
        "sidecar",
        evidence.held,
        "{name}: its launchers have ended, and what the cluster has added to the pods has not: {what}; until then "
        "nothing that they hold is given back, and no other attempt starts",
        "`stackctl cancel {name}` removes it; have whoever adds that container leave out pods with the label "
        "app.kubernetes.io/managed-by=stackctl, or add it as a native sidecar (an init container with restartPolicy "
        "Always), which ends with the job",
    ),
    Cause(
        "quota",
        _by_admission("quota", r"exceeded quota"),
        "{name}: pods cannot be created, the namespace's quota is used up: {what}",
        "wait for other runs, ask for less, or have the quota raised",
    ),
    Cause(
        "quota too small",
        _by_admission("too small", r"exceeded quota"),
        "{name} asks for more than the namespace may have: {what}",
        "have the quota raised, or remove it (stackctl cancel {name}) and ask for less",
    ),
    Cause(
        "amount missing",
        _by_admission("unsaid", r"must specify"),
        "{name}: pods cannot be created: {what}",
        "remove it (stackctl cancel {name}), and submit it again with that",
    ),
    Cause(
        "limit range",
        _by_admission("limit range", r"(minimum|maximum) \S+ usage per", r"limit to request ratio per"),
        "{name}: pods cannot be created: {what}",
        "remove it (stackctl cancel {name}), and ask for what is allowed",
    ),
    Cause(
        "amounts clash",
        _by_admission("invalid", r"must be (less than or )?equal to \S+ limit of"),
        "{name}: pods cannot be created: {what}",
        "remove it (stackctl cancel {name}), and submit it again with a limit of its own",
    ),
    Cause(
        "pod security",
        evidence.not_created(r"violates PodSecurity"),
        "{name}: pods are not admitted by the namespace's pod security: {what}",
        "something in the cluster changes the pods, or the profile asks for what is not allowed",
    ),
    Cause(
        "webhook",
        evidence.not_created(r"admission webhook", r"failed calling webhook"),
        "{name}: an admission webhook of the cluster refuses the pods: {what}",
        "ask who runs the webhook; pods are tried again for as long as the job is there",
    ),
    Cause(
        "not admitted",
        evidence.not_created(r"."),
        "{name}: pods cannot be created: {what}",
        "put it right in the cluster; pods are tried again for as long as the job is there",
    ),
    Cause(
        "queued",
        evidence.queued,
        "{name} waits in its queue{what}",
        "the queue starts it when there is room; `kubectl describe workload` tells more",
    ),
    Cause(
        "no job",
        evidence.unmade,
        "{name} is there as a {what}, of which nobody has made a Job",
        "see whether who looks after such objects runs in the cluster, and lets this one through",
    ),
    Cause(
        "claim",
        evidence.mount,
        "{name}: a volume cannot be mounted, on {what}",
        "a claim that is Pending or absent (`kubectl get pvc`) keeps the pod waiting, as does what a --mount names",
    ),
    Cause(
        "gang broken",
        gang_evidence.broken,
        "{name} waits for ever: {what}, which has ended well and does not run again",
        "remove it (stackctl cancel {name}) and submit it again: from a checkpoint on a --volume it goes on",
    ),
    Cause(
        "gang",
        gang_evidence.unplaced,
        "{name}: the cluster places all nodes at once or none, and has no room for all {what}",
        "it holds nothing while it waits; wait for room, or ask for less",
    ),
    Cause(
        "unschedulable",
        evidence.unschedulable,
        "{name}: the cluster has no room for {what}",
        "wait for room, or ask for less; `stackctl cancel {name}` gives up the nodes that it holds",
    ),
    Cause(
        "claim",
        evidence.unprovided,
        "{name}: pods wait for a volume, and there is none yet for the claim {what}",
        "its storage class makes one for the first pod that wants it: `kubectl describe pvc` tells who should, and why "
        "it does not; a claim of another class can be used at once",
    ),
    Cause(
        "image unauthorized",  # before what is not found: a registry says so, too, of a name that it does not know
        evidence.pull(r"unauthorized", r"denied", r"\b403\b", r"authentication required", r"authorization failed"),
        "{name}: the registry does not let the cluster pull the image, or has none of this name, for {what}",
        "check the name; for a private image give the namespace's default service account an image pull secret",
    ),
    Cause(
        "image not found",
        evidence.pull(r"not found", r"manifest unknown", r"does not exist", r"NeverPull", r"InvalidImageName"),
        "{name}: there is no such image for {what}",
        "push it where the cluster can pull it, and name it with --image or STACK_IMAGE_PREFIX",
    ),
    Cause(
        "image pull",
        evidence.pull(r"."),
        "{name}: the image cannot be pulled, for {what}",
        "it is tried again; look at the registry, and at the way to it from the cluster's nodes",
    ),
    Cause(
        "image pulling", evidence.pulling, "{name} still pulls its image, for {what}", "a large image takes its time"
    ),
    Cause(
        "secret",
        evidence.not_started(r'(secret|configmap) "[^"]*" not found', r"couldn't find key"),
        "{name}: a Secret that it needs is not there, for {what}",
        "create it; if it has the run's own name the submission was cut: repeat it",
    ),
    *_not_started(evidence.not_started),
)

_FAILED = (
    *_not_started(evidence.not_run),
    Cause("configuration", evidence.config, "{name} cannot work as it is: {what}", f"put it right, {_SUBMIT_AGAIN}"),
    Cause(
        "sidecar failed",
        evidence.other_failed,
        "{name}: its launcher has not failed, and a container that the cluster has added has: {what}; Kubernetes takes "
        "the node for failed",
        "have whoever adds that container leave out pods with the label app.kubernetes.io/managed-by=stackctl",
    ),
    Cause("unpack", evidence.unpack, "{name}: the shipped code could not be unpacked, on {what}"),
    Cause(
        "out of memory",
        evidence.out_of_memory,
        "{name} ran out of memory: {what}",
        "raise --memory, or make the batch smaller; --shm counts as memory too",
    ),
    Cause(
        "evicted",
        evidence.evicted,
        "{name} was evicted from a node that ran short: {what}",
        "ask for what it uses with --memory or --ephemeral-storage, and write large files to a --volume",
    ),
    Cause(
        "node lost",
        evidence.node_lost,
        "{name} lost a node: {what}",
        "look at that node; its pod is replaced once it is gone",
    ),
    Cause(
        "disrupted",
        evidence.disrupted,
        "{name} was interrupted (a drain, a preemption, a deleted pod): {what}",
        "that does not count as a failure: it starts anew from its last checkpoint",
    ),
    Cause("rank failed", evidence.rank_failed, "{name}: {what}", "`stackctl logs {name}` has the rest"),
    Cause(
        "no service",
        evidence.service_gone,
        "{name}: its Service is not there, so nodes that have not met yet cannot find each other",
        "submit it again with the same words: what is missing is made",
    ),
    Cause(
        "peers missing",
        evidence.peers_missing,
        "{name}: {what}",
        "the other pods never met: look at the node that is named, and at what blocks traffic between pods",
    ),
    Cause("ended", evidence.ended, "{name} failed: {what}", "`stackctl logs {name}` has the rest"),
)

CAUSES: tuple[Cause, ...] = (
    Cause("succeeded", evidence.succeeded, "{name} has succeeded"),
    Cause(
        "deadline",
        evidence.deadline,
        "{name} was ended: it took longer than its --deadline",
        f"give it more time, {_SUBMIT_AGAIN}; from a checkpoint on a --volume it goes on",
    ),
    *_live(_WAITING),
    Cause("running", evidence.up, "{name} runs: {what}"),
    *_FAILED,
    Cause("failed", evidence.failed, "{name} failed: {what}"),
    Cause("starting", evidence.starting, "{name} is starting: {what}"),
    Cause("running", evidence.running, "{name} runs: {what}"),
)
"""In the order in which they are looked for: what blocks a run now, before why an earlier attempt failed."""

_PRESENT = {"running", *(cause.name for cause in _WAITING)}
"""Causes that are about now: they may have a past."""
