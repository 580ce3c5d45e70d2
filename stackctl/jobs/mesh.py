"""What keeps service meshes out of a pod: a sidecar would encrypt and count what NCCL and gloo send, and never end.

Sources: Istio's and Kuma's labels (they read no annotation any more), Linkerd's and Consul's annotations, of their
documents on automatic injection.
"""

LABELS = {"sidecar.istio.io/inject": "false", "kuma.io/sidecar-injection": "disabled"}
ANNOTATIONS = {
    "sidecar.istio.io/inject": "false",
    "kuma.io/sidecar-injection": "disabled",
    "linkerd.io/inject": "disabled",
    "consul.hashicorp.com/connect-inject": "false",
}
