"""Runs in the image with one process and no strategy: the weights that the same steps give in plain TensorFlow."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from stackrt.pictures import batches, options, trainer
from stackrt.train.cnn import make_deterministic, network

o = options.read(sys.argv[1:], options.parser(""), options.Options)
make_deterministic(o.seed)
data = trainer.load(o)
pictures, labels = data.floats(data.train.pictures), data.train.labels
model, optimizer = network(o.lr, data.shape, len(data.classes))
for step in range(o.steps):
    chosen = batches.batch(o, step, 0, 1, len(labels))
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels[chosen], model(pictures[chosen], training=True))
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
np.savez(Path(o.out) / "serial.npz", **{variable.name: variable.numpy() for variable in model.trainable_variables})
