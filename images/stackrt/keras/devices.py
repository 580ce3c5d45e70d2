"""Which devices a training takes, and the strategy that spreads it over them."""

import os

import tensorflow as tf

from stackrt.keras.options import Options
from stackrt.train.errors import BadInputError


def take(o: Options) -> list[str]:
    """Choose this process's devices, before TensorFlow uses any: GPUs, else the CPU as one or more logical devices.

    Returns:
        Their names, as `GPU:0`.

    Raises:
        BadInputError: There are not as many.
    """
    if o.threads:
        tf.config.threading.set_intra_op_parallelism_threads(o.threads)
    wish = os.environ.get("STACK_DEVICE", "auto")
    gpus = [] if wish == "cpu" else tf.config.list_physical_devices("GPU")
    if wish == "cuda" and not gpus:
        raise BadInputError(
            "STACK_DEVICE=cuda: TensorFlow sees no GPU; its lines above say what it could not load, and "
            "`stackctl test tensorflow` looks for it"
        )
    if not gpus:
        tf.config.set_visible_devices([], "GPU")
        count = max(1, o.devices)
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        return [f"CPU:{index}" for index in range(count)]
    wanted = 1 if o.strategy == "one" else o.devices or len(gpus)
    if wanted > len(gpus):
        raise BadInputError(f"--devices {wanted}: TensorFlow sees {len(gpus)} GPUs; ask for fewer, or leave it out")
    tf.config.set_visible_devices(gpus[:wanted], "GPU")
    for gpu in gpus[:wanted]:
        tf.config.experimental.set_memory_growth(gpu, True)  # else it takes all memory, also of who shares the GPU
    return [f"GPU:{index}" for index in range(wanted)]


def kind(found: tf.distribute.Strategy) -> str:
    """`cpu`, `cuda` or `tpu`."""
    if isinstance(found, tf.distribute.TPUStrategy):
        return "tpu"
    return "cuda" if "GPU" in found.extended.worker_devices[0] else "cpu"


def strategy(o: Options) -> tf.distribute.Strategy:
    """The strategy of a training; call it before anything else uses TensorFlow.

    Raises:
        BadInputError: The devices are not there, or cannot share a step's pictures.
    """
    if o.strategy == "tpu":
        found = _tpu()
    else:
        devices = take(o)
        # By name: without names it takes TF_CONFIG, which the launcher sets, for a cluster of workers.
        several = o.strategy == "mirrored" or len(devices) > 1
        found = tf.distribute.MirroredStrategy(devices) if several else tf.distribute.OneDeviceStrategy(devices[0])
    replicas = found.num_replicas_in_sync
    if o.batch_size % replicas:
        raise BadInputError(f"--batch-size {o.batch_size}: {replicas} devices cannot share it evenly")
    return found


def _tpu() -> tf.distribute.Strategy:
    # On a TPU's own virtual machine its address is `local`.
    address = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
        if address != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]  # the rest is TensorFlow's inside
        raise BadInputError(
            f"--strategy tpu: no TPU answers at {address} ({why}); set TPU_NAME to a TPU's name or grpc:// address, or "
            "take --strategy mirrored"
        ) from None
