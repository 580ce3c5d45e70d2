"""What a submission asks the cluster beforehand, by name. `preflight.py` asks; the command line lists the names."""

CHECKS = {
    "namespace": "the namespace is there",
    "access": "you may do what a submission takes",
    "claims": "the claims are there, and enough nodes may mount them",
    "pods": "the namespace takes such pods, and has what they name",
    "priority": "the priority class is there",
    "runtime": "the profile's runtime class is there",
    "queue": "the queue is there",
    "limits": "limit ranges admit the pods",
    "quota": "quotas admit the pods and the job's objects",
    "admission": "the cluster would take the Job",
    "room": "nodes have room for the pods",
}
"""Name -> what it looks at, in the order in which they are told."""
