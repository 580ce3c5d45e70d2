"""What keeps service meshes out of a pod: a sidecar would encrypt and count what NCCL and gloo send, and never end.

Sources: Istio's and Kuma's labels (they read no annotation any more), and the annotations of the others, of their
documents on automatic injection. Istio's ambient mode has no sidecar; it reads a label, too.
"""

LABELS = {
    "sidecar.istio.io/inject": "false",
    "istio.io/dataplane-mode": "none",
    "kuma.io/sidecar-injection": "disabled",
    "injector.nsm.nginx.com/auto-inject": "disabled",
}
ANNOTATIONS = {
    "sidecar.istio.io/inject": "false",
    "kuma.io/sidecar-injection": "disabled",
    "linkerd.io/inject": "disabled",
    "consul.hashicorp.com/connect-inject": "false",
    "openservicemesh.io/sidecar-injection": "disabled",
    "appmesh.k8s.aws/sidecarInjectorWebhook": "disabled",
    "injector.nsm.nginx.com/auto-inject": "false",
    "sidecar.opentelemetry.io/inject": "false",
}
