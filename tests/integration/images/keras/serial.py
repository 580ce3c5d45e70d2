"""Runs in the image, in a process of its own: plain TensorFlow's weights after the same steps, and what was saved.

python serial.py WORDS…     the words of the training, whose folder is --out
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from stackrt.keras import networks, options, saved, steps
from stackrt.pictures import data as sets

o = options.parse(sys.argv[1:])
tf.config.experimental.enable_op_determinism()
keras.utils.set_random_seed(o.seed)
data = sets.load(o.data, o.cache)
model = networks.build(o, data.shape, len(data.classes), o.steps)
optimizer = keras.optimizers.SGD(networks.learning_rate(o, o.steps), momentum=0.9)
for chosen in steps.order(o.seed, 0, o.steps, o.batch_size, len(data.train)):
    with tf.GradientTape() as tape:
        scores = model(data.floats(data.train.pictures[chosen]), training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(data.train.labels[chosen], scores)
        loss = tf.reduce_mean(losses)
    optimizer.apply_gradients(
        zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
    )

trained = np.load(o.out / "weights.npz")
assert sorted(trained) == sorted(variable.path for variable in model.trainable_variables)
found = {"weights": max(float(np.abs(trained[v.path] - v.numpy()).max()) for v in model.trainable_variables)}
before = np.load(o.out / "predictions.npz")["scores"]
for name in saved.NAMES:
    after = saved.load(o.out / name).scores(data.floats(data.test.pictures))
    found[name] = float(np.abs(after - before).max())
print(json.dumps(found))
