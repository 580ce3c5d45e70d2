"""A real Kubernetes on one Linux machine, from public packages: a control plane and two nodes with 8 GPUs each.

programs       where its programs are, and building them from the Go modules in go/
site           one cluster's folder, addresses and names
jail, node     run by path: the first process of the cluster's, and of a node's, own namespaces
control_plane  the command lines and files of etcd, the API server, its controllers, the scheduler and DNS
nodes          those of containerd and the kubelet
images         what the nodes can run
api            requests to the API server
fake_nodes     simulated nodes, for scale
manager        what stands beside a cluster and looks after kinds of its own
kueue          Kueue, and the queues of a test
operators      JobSet and Kubeflow's Trainer
cluster        all of it together
"""
