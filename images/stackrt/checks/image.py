"""Is the image what its build meant, and is this the machine that the caller meant?"""

from stackrt.checks.context import Context
from stackrt.checks.files import size_of
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped
from stackrt.checks.words import NO_IMAGE, REBUILD
from stackrt.contract import LABEL

MEANS = {"gpu": "a GPU", "multi-gpu": "two GPUs or more", "multi-node": "two nodes or more"}


@check(
    "required",
    tags=("image",),
    timeout=5.0,
    proves="what --require names is here, so that nothing falls back to a CPU in silence",
    criterion="everything that --require names",
    parallel=True,
)
def required(context: Context) -> Result:
    """Compare what the caller asked for with what is here."""
    asked = context.requested_gpus or 0
    lacks = {need: text for need in sorted(context.required) if (text := context.lacks(need))}
    if not lacks and context.gpus < asked:
        lacks["gpu"] = f"{context.gpus} GPUs are visible here, and {asked} are asked for"
    if lacks:
        return failed(
            "; ".join(dict.fromkeys(lacks.values())),
            expected=f"{asked} GPUs" if asked else " and ".join(MEANS[need] for need in lacks),
            todo="run it on such a machine; a container sees GPUs only with --gpus all and NVIDIA's container toolkit",
        )
    if not context.required:
        return skipped("nothing is required: see --require")
    return passed(f"{' and '.join(sorted(context.required))}: here", gpus=context.gpus, nodes=context.nodes)


@check(
    "labels",
    tags=("image",),
    timeout=5.0,
    proves="a registry's page and an admission rule read the truth",
    criterion="OCI labels == the build's metadata",
    parallel=True,
)
def labels(context: Context) -> Result:
    """Compare the labels that the engine reports with the facts that the build left in the image."""
    if context.image is None:
        return skipped(NO_IMAGE)
    if context.seen is None:
        return skipped("an image's labels are seen from outside only: stackctl test")
    image = context.image
    due = {"variant": image.variant, "lock": image.lock, **image.versions}
    expected = {f"{LABEL}{key}": value for key, value in due.items()}
    expected["org.opencontainers.image.base.name"] = image.base
    wrong = [
        f"{key}={context.seen.labels.get(key, '(absent)')}"
        for key, value in expected.items()
        if context.seen.labels.get(key) != value
    ]
    if wrong:
        rest = ", ".join(f"{key}={value}" for key, value in expected.items() if any(key in word for word in wrong))
        return failed(
            ", ".join(wrong), expected=rest, todo=REBUILD + "; a Dockerfile that starts FROM it must keep labels"
        )
    return passed(f"{len(expected)} labels as built", digest=context.seen.digest)


@check(
    "size-budget",
    tags=("image",),
    timeout=120.0,
    proves="nothing large has slipped into the image",
    criterion="bytes <= the image's budget",
    parallel=True,
)
def size_budget(context: Context) -> Result:
    """Compare the image's size with its budget: as the engine sees it, else the sum of its files."""
    if context.image is None:
        return skipped(NO_IMAGE)
    if not context.image.budget:
        return skipped("this image has no budget (images/catalog.toml)")
    files = size_of(context.root)
    size = max(files, context.seen.size if context.seen else 0)
    figures = {"bytes": size, "bytes_of_files": files, "budget_bytes": context.image.budget}
    if size > context.image.budget:
        return failed(
            f"{size / 1e6:,.0f} MB",
            expected=f"at most {context.image.budget / 1e6:,.0f} MB",
            todo="see what grew (docker history; du -x /), or raise the budget in images/catalog.toml on purpose",
            **figures,
        )
    return passed(f"{size / 1e6:,.0f} MB of {context.image.budget / 1e6:,.0f} MB", **figures)
