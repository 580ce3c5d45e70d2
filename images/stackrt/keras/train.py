"""Train a network on pictures with Keras's `fit`, so that it can be stopped, killed and gone on with.

    python -m stackrt.keras                                   digits, on this machine's GPUs or on its CPU
    stackctl run keras --gpus 8 -- --data fashion-mnist       a node of eight GPUs, in one process
    stackctl run keras -- --devices 2                         the CPU as two devices, to try MirroredStrategy out

MirroredStrategy gives each device its part of a step's pictures and sums their gradients: any number trains alike.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stackrt import signals
from stackrt.keras import devices, feed, figures, networks, saved, steps
from stackrt.keras.fitting import Fitting, Stopped
from stackrt.keras.options import Options, describe
from stackrt.pictures import batches
from stackrt.pictures import data as sets
from stackrt.pictures.data import Pictures
from stackrt.pictures.log import write_weights
from stackrt.train import report
from stackrt.train.errors import INTERRUPTED, BadInputError
from stackrt.train.tf_config import workers


def run(o: Options) -> int:
    """Train, and leave model, pictures and result; returns the exit code: 0, or 128 + the signal that asked to stop.

    Raises:
        TrainerError: Something cannot work, or training went wrong.
    """
    began = time.perf_counter()
    if len(workers(os.environ)) > 1 or int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise BadInputError(
            "keras trains in one process, which takes all GPUs of its node: Keras 3 cannot train under "
            "MultiWorkerMirroredStrategy; start one rank on one node, or train cnn, which runs on several"
        )
    report.prepare_folder(o.out)
    data = sets.load(o.data, o.cache)
    strategy = devices.strategy(o)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(o.seed)
    batches.check(o.batch_size, 1, len(data.train))
    per_epoch = len(data.train) // o.batch_size
    end = o.steps or o.epochs * per_epoch
    with strategy.scope():
        model = networks.build(o, data.shape, len(data.classes), end)
        model.optimizer.build(model.trainable_variables)
    count, kind = strategy.num_replicas_in_sync, devices.kind(strategy)
    say(data.about)
    say(f"keras   {o.model}, {model.count_params():,} parameters, {o.precision}, {count} x {kind}, "
        f"{o.batch_size} pictures a step, seed {o.seed}")  # fmt: skip

    fitting = Fitting(o, model, identity(o, data, end), end, per_epoch, say)
    with strategy.scope():
        resumed = fitting.resume()
    if resumed:
        say(f"going on from {resumed} after step {fitting.done}")
    heard: list[int] = []
    try:
        with signals.handled(heard.append, (signal.SIGTERM, signal.SIGINT)):
            fit(o, fitting, data, heard)
    except Stopped:
        path = fitting.save()
        fitting.close()
        name = signal.Signals(heard[0]).name
        say(f"stopped by {name} after step {fitting.done}; the same command goes on from {path}")
        return INTERRUPTED + heard[0]
    fitting.close()
    fitting.take_best()
    finish(o, fitting, data, {"device": kind, "devices": count, "resumed_from": resumed,
                              "seconds": round(time.perf_counter() - began, 3)})  # fmt: skip
    return 0


def fit(o: Options, fitting: Fitting, data: Pictures, heard: list[int]) -> None:
    """Train from where the run is to its last step, or until it is to end sooner.

    Raises:
        Stopped: A signal was heard.
    """
    fitting.heard = heard
    validation = feed.measuring(data, data.validation, o.batch_size)
    for stretch in steps.stretches(fitting.done, fitting.end, fitting.per_epoch):
        if fitting.over:
            return
        stop = stretch.start + stretch.steps * stretch.epochs
        indices = steps.order(o.seed, stretch.start, stop, o.batch_size, len(data.train))
        first = stretch.start // fitting.per_epoch
        fitting.network.fit(
            feed.training(data, indices), epochs=first + stretch.epochs, initial_epoch=first, verbose=0, shuffle=False,
            steps_per_epoch=stretch.steps, validation_data=validation, callbacks=[fitting],
        )  # fmt: skip


def finish(o: Options, fitting: Fitting, data: Pictures, more: dict[str, Any]) -> None:
    """Test, save the model in each format and see that it comes back, draw, and write the result."""
    model, done = fitting.network, fitting.done
    scores = model.predict(feed.measuring(data, data.test, o.batch_size), verbose=0)
    chosen_by = model.predict(feed.measuring(data, data.validation, o.batch_size), verbose=0)
    validated = float(np.mean(np.argmax(chosen_by, axis=1) == data.validation.labels))
    guesses = np.argmax(scores, axis=1)
    accuracy = float(np.mean(guesses == data.test.labels))
    with report.writing(o.out / "predictions.npz"):
        np.savez(o.out / "predictions.npz", scores=scores, labels=data.test.labels)
    differences = saved.save(model, o.out, data, scores)
    figures.predictions(o.out / "predictions.png", data, saved.probabilities(scores))
    figures.confusion(o.out / "confusion.png", data, guesses)
    weights = {variable.path: np.asarray(variable) for variable in model.trainable_variables}
    write_weights(o.out / "weights.npz", weights)
    history = {name: value for name, value in fitting.history.items() if name.startswith(("first_", "last_"))}
    speed = fitting.speed
    report.write_result(o.out / "result.json", {
        "workload": "keras", "model": o.model, "steps": done, "seed": o.seed, "world_size": 1, **more,
        "samples": done * o.batch_size, "samples_per_second": speed, "parameters": model.count_params(), **history,
        "best_step": fitting.history.get("best_step"), "accuracy": accuracy,
        "validation_accuracy": validated, "loss": history.get("last_train_loss"),
        "data": data.name, "data_sha256": data.digest, "saved": differences,
        "params_sha256": report.arrays_sha256(weights), "options": describe(o),
    })  # fmt: skip
    say(
        f"done    {done} steps, test accuracy {accuracy:.3f}" + (f", {speed:,.0f} pictures per second" if speed else "")
    )
    say(f"files   {o.out}: result.json, {', '.join(saved.NAMES)}, predictions.png, confusion.png, metrics.jsonl, "
        "tensorboard/")  # fmt: skip


def identity(o: Options, data: Pictures, end: int) -> dict[str, Any]:
    """What a checkpoint must share with the run that goes on from it."""
    named = "a folder" if Path(data.name).is_absolute() or "/" in data.name else data.name
    return {
        "the workload": "keras",
        "the data set": f"{named} (sha256 {data.digest[:12]})",
        "--model": o.model,
        "--dropout": o.dropout,
        "--precision": o.precision,
        "--batch-size": o.batch_size,
        "--seed": o.seed,
        "--lr": o.lr,
        "--warmup": o.warmup,
        "--schedule": o.schedule if o.schedule == "constant" else f"{o.schedule} over {end} steps",
    }


def say(line: str) -> None:
    """Print at once; logs are read while they grow."""
    print(line, flush=True)
