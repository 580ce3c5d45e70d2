"""Multiply two matrices on a device that is named; the result tells where it was made.

python matmul.py                 on the first GPU, else on the CPU
python matmul.py GPU:1 4096      on the second GPU, 4096 x 4096
"""

import sys
import time

import tensorflow as tf

devices = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
name = sys.argv[1] if len(sys.argv) > 1 else "GPU:0" if "GPU:0" in devices else "CPU:0"
size = int(sys.argv[2]) if len(sys.argv) > 2 else 1024
if name not in devices:
    sys.exit(f"error: there is no {name}; this machine has {', '.join(devices)}")

with tf.device(name):
    a = tf.random.stateless_normal((size, size), seed=(0, 1))
    b = tf.random.stateless_normal((size, size), seed=(0, 2))
    tf.matmul(a, b)  # the first one also loads libraries and chooses a kernel
    began = time.perf_counter()
    product = tf.matmul(a, b)
    product.numpy()  # waits for the device
    seconds = time.perf_counter() - began

error = float(tf.reduce_max(tf.abs(product[0] - tf.reduce_sum(a[0, :, None] * b, axis=0))))
print(f"{size} x {size} on {product.device}: {2 * size**3 / seconds / 1e9:,.0f} GFLOP/s, largest error {error:.1e}")
