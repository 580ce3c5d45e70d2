"""Runs in the image on two ranks: what Horovod promises TensorFlow, checked to the last bit. Prints `ok NAME`.

Arguments name what to leave out.
"""

import sys

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf


def same(found: tf.Tensor, *expected: float) -> bool:
    return bool(found.numpy().ravel().tolist() == list(expected))


def allreduce() -> None:
    mine = tf.constant([1.0, 2.0, 3.0]) * (hvd.rank() + 1)
    for op, expected in (
        (hvd.Sum, (3, 6, 9)), (hvd.Average, (1.5, 3, 4.5)), (hvd.Min, (1, 2, 3)), (hvd.Max, (2, 4, 6)),
        (hvd.Product, (2, 8, 18)),
    ):  # fmt: skip
        assert same(hvd.allreduce(mine, op=op), *expected), op
    assert same(tf.function(lambda x: hvd.allreduce(x, op=hvd.Sum, name="graph"))(mine), 3, 6, 9)
    first, second = hvd.grouped_allreduce([mine, mine * 10], op=hvd.Sum)
    assert same(first, 3, 6, 9)
    assert same(second, 30, 60, 90)


def allgather() -> None:
    mine = tf.fill([hvd.rank() + 1, 2], float(hvd.rank()))
    assert same(hvd.allgather(mine), 0, 0, 1, 1, 1, 1)
    assert hvd.allgather_object({"rank": hvd.rank()}) == [{"rank": 0}, {"rank": 1}]


def broadcast() -> None:
    for root in (0, 1):
        assert same(hvd.broadcast(tf.constant([float(hvd.rank()), 7.0]), root_rank=root), root, 7)
    variable = tf.Variable([hvd.rank() + 1.0])
    hvd.broadcast_variables([variable], root_rank=1)
    assert same(variable, 2)


def alltoall() -> None:
    mine = tf.constant([0.0, 1.0, 2.0]) + 10.0 * hvd.rank()
    received, counts = hvd.alltoall(mine, splits=tf.constant([1, 2]))
    assert same(received, *((0, 10) if hvd.rank() == 0 else (1, 2, 11, 12)))
    assert same(counts, *((1, 1) if hvd.rank() == 0 else (2, 2)))


def gradient_tape() -> None:
    weight, table = tf.Variable([0.0, 0.0]), tf.Variable(np.zeros((4, 1), np.float32))
    with hvd.DistributedGradientTape(tf.GradientTape()) as tape:
        rows = tf.gather(table, [hvd.rank(), 3])
        loss = tf.reduce_sum(weight * (hvd.rank() + 1.0)) + 4.0 * tf.reduce_sum(rows)
    dense, sparse = tape.gradient(loss, [weight, table])
    assert same(dense, 1.5, 1.5)
    # Rows 0 and 3 on one rank, 1 and 3 on the other: 4 each, halved by the mean.
    assert same(tf.convert_to_tensor(sparse), 2, 2, 0, 4)


def join() -> None:
    for turn in range(3 if hvd.rank() == 0 else 1):
        total = hvd.allreduce(tf.constant([1.0]), name=f"turn{turn}", op=hvd.Sum)
        assert same(total, 2 if turn == 0 else 1), (turn, total)
    assert int(hvd.join()) == 0, "rank 0 was the last to join"


def process_sets() -> None:
    own = sets[hvd.rank()]
    assert (own.size(), own.rank()) == (1, 0)
    mine = tf.constant([hvd.rank() + 5.0])
    assert same(hvd.allreduce(mine, op=hvd.Sum, process_set=own), hvd.rank() + 5)
    assert same(hvd.allreduce(mine, op=hvd.Sum), 11)


sets = [hvd.ProcessSet([0]), hvd.ProcessSet([1])]
hvd.init(process_sets=sets)
assert hvd.size() == 2
assert hvd.gloo_built()
assert not hvd.mpi_built()
# join() is last: it lets ranks count differently, and Horovod names what has no name by counting.
for check in (allreduce, allgather, broadcast, alltoall, gradient_tape, process_sets, join):
    if check.__name__ not in sys.argv[1:]:
        check()
        print("ok", check.__name__, flush=True)
hvd.shutdown()
