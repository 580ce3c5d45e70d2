"""The shards of `stackctl run prepare`, made by Spark: a task for each shard, and the same bytes.

    pip install pyspark numpy tokenizers                     pyspark 4 needs Java 17 or newer
    spark-submit prepare.py --data corpus --to shards        the options of prepare; executors must see both folders

Executors find `stackrt` by PYTHONPATH (images/ of a checkout), and take the Python of PYSPARK_PYTHON.
"""

import sys
from collections.abc import Iterable, Iterator

from pyspark.sql import SparkSession

from stackrt.train import prepare, prepare_options, sources, vocabulary
from stackrt.train.shard_files import Shard


def main() -> None:
    """Prepare with Spark."""
    o = prepare_options.parse(sys.argv[1:])
    parts = sources.plan(sources.find(o.data), o.shard_bytes)
    _, recipe = prepare.agree(o, parts, first=True)  # the driver learns the tokenizer, and writes it down

    def make(some: Iterable[sources.Part]) -> Iterator[Shard]:
        tokenizer = vocabulary.kept(o.to, recipe["tokenizer"])
        for part in some:
            yield prepare.make(o, part, tokenizer, recipe)

    spark = SparkSession.builder.appName("prepare").getOrCreate()
    shards = spark.sparkContext.parallelize(parts, len(parts)).mapPartitions(make).collect()  # in the parts' order
    index = prepare.finish(o, parts, recipe, shards)
    print(f"{index['tokens']:,} tokens in {len(shards):,} shards")
    spark.stop()


if __name__ == "__main__":
    main()
