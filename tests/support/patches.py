"""Patches over a pod, for what is merged here and what kubectl makes of the same."""

from __future__ import annotations

from typing import Any

POD: dict[str, Any] = {
    "metadata": {"name": "a", "labels": {"team": "vision", "stackctl.io/run": "a"}},
    "spec": {
        "restartPolicy": "Never",
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "nodeSelector": {"pool": "a", "zone": "b"},
        "securityContext": {"runAsUser": 1000, "fsGroup": 1000, "supplementalGroups": [1, 2]},
        "imagePullSecrets": [{"name": "one"}],
        "containers": [
            {
                "name": "node",
                "image": "i",
                "args": ["a", "b", "c"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "volumeMounts": [
                    {"name": "shm", "mountPath": "/dev/shm"},
                    {"name": "out", "mountPath": "/out"},
                ],
            }
        ],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {"name": "out", "emptyDir": {}},
        ],
    },
}


def node(**fields: Any) -> dict[str, Any]:
    """A patch over the launcher's container."""
    return {"spec": {"containers": [{"name": "node", **fields}]}}


PATCHES: dict[str, dict[str, Any]] = {
    "a map is merged": {"metadata": {"labels": {"team": "speech", "more": "x"}}},
    "null removes": {"spec": {"nodeSelector": {"pool": None, "absent": None}, "securityContext": None}},
    "a new map": {"spec": {"affinity": {"podAffinity": {}}, "dnsConfig": {"searches": ["a"], "options": None}}},
    "a list of words is replaced": {"spec": {"securityContext": {"supplementalGroups": [7]}}},
    "tolerations are replaced": {"spec": {"tolerations": [{"key": "other", "operator": "Exists"}]}},
    "containers by their names": node(resources={"limits": {"memory": "2Gi", "cpu": None}}, tty=True),
    "a new container": {"spec": {"containers": [{"name": "more", "env": [{"name": "X", "value": "y"}]}]}},
    "a container behind": {"spec": {"containers": [{"name": "node", "tty": True}, {"name": "more", "image": "m"}]}},
    "a container of the start": {"spec": {"initContainers": [{"name": "load", "restartPolicy": "Always"}]}},
    "variables by their names": node(env=[{"name": "C", "value": "4"}, {"name": "D", "value": "5"}]),
    "variables in another order": node(env=[{"name": "C", "value": "4"}, {"name": "A", "value": "0"}]),
    "a variable is removed": node(env=[{"name": "B", "$patch": "delete"}, {"name": "D", "value": "5"}]),
    "variables are replaced": node(env=[{"$patch": "replace"}, {"name": "D", "value": "5"}]),
    "ports by their numbers": node(ports=[{"containerPort": 80, "name": "web"}, {"containerPort": 81}]),
    "mounts by their paths": node(volumeMounts=[{"mountPath": "/out", "name": "out", "subPath": "x"}]),
    "a volume is merged": {"spec": {"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "2Gi"}}]}},
    "a volume of another kind": {
        "spec": {"volumes": [{"name": "shm", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/shm"}}]}
    },
    "a volume is removed": {"spec": {"volumes": [{"name": "out", "$patch": "delete"}]}},
    "a map is replaced": {"spec": {"nodeSelector": {"$patch": "replace", "pool": "c"}}},
    "a map is emptied": {"spec": {"nodeSelector": {"$patch": "delete"}}},
    "a word is taken out of a list": node(**{"$deleteFromPrimitiveList/args": ["b"]}),
    "arguments are replaced": node(args=["x"]),
    "secrets by their names": {"spec": {"imagePullSecrets": [{"name": "two"}, {"name": "one"}]}},
    "aliases of hosts": {"spec": {"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}]}},
    "spread": {"spec": {"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1}]}},
    "a directive where nothing is": {"spec": {"dnsConfig": {"$patch": "replace", "searches": ["a"]}}},
    "nothing is removed": {"spec": {"volumes": [{"name": "absent", "$patch": "delete"}]}},
    "finalizers": {"metadata": {"finalizers": ["example.com/a"]}},
}  # fmt: skip
"""What it is about -> the patch."""
