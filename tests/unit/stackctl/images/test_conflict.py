"""The words are uv's own, as it printed them for these requirements."""

from __future__ import annotations

import pytest

from stackctl.images import conflict

HEAD = "error: No solution found when resolving dependencies\n  cause: "


@pytest.mark.parametrize(
    ("output", "asked", "sentence", "involved"),
    [
        pytest.param(
            "Because torch==2.10.0 depends on nvidia-nccl-cu12{platform_machine == 'x86_64' and sys_platform == 'linux'"
            "}==2.27.5 and tensorflow[and-cuda]==2.21.0 depends on nvidia-nccl-cu12>=2.27.7,<3.0, we can conclude that "
            "tensorflow[and-cuda]==2.21.0 and torch==2.10.0 are incompatible.\n         And because you require "
            "tensorflow[and-cuda]==2.21.0 and torch==2.10.0, we can conclude that your requirements are unsatisfiable.",
            ["tensorflow[and-cuda]==2.21.0", "torch==2.10.0", "matplotlib==3.11.2"],
            "no version of nvidia-nccl-cu12 fits: torch==2.10.0 wants ==2.27.5, tensorflow[and-cuda]==2.21.0 wants "
            ">=2.27.7,<3.0",
            ("tensorflow[and-cuda]==2.21.0", "torch==2.10.0"),
            id="two-packages",
        ),
        pytest.param(
            "Because transformers>=5.23.0 depends on huggingface-hub>=1.31.0,<3.0 and you require transformers==5.23.0,"
            " we can conclude that you require huggingface-hub>=1.31.0,<3.0.\n         And because you require "
            "huggingface-hub==0.20.0, we can conclude that your requirements are unsatisfiable.",
            ["transformers==5.23.0", "huggingface-hub==0.20.0"],
            "no version of huggingface-hub fits: transformers==5.23.0 wants >=1.31.0,<3.0, the catalog wants ==0.20.0",
            ("transformers==5.23.0", "huggingface-hub==0.20.0"),
            id="package-and-catalog",
        ),
        pytest.param(
            "Because there is no version of torch==9.9.9 and you require torch==9.9.9, we can conclude that your "
            "requirements are unsatisfiable.",
            ["torch==9.9.9"],
            "the package index has no torch==9.9.9",
            ("torch==9.9.9",),
            id="no-such-version",
        ),
        pytest.param(
            "Because torhc was not found in the package registry and you require torhc==2.13.0, we can conclude that "
            "your requirements are unsatisfiable.",
            ["torhc==2.13.0"],
            "the package index has no package named torhc",
            ("torhc==2.13.0",),
            id="no-such-package",
        ),
        pytest.param(
            "Because the requested Python version (>=3.11) does not satisfy Python>=3.12 and numpy==2.5.0 depends on "
            "Python>=3.12, we can conclude that numpy==2.5.0 cannot be used.\n         And because you require "
            "numpy==2.5.0, we can conclude that your requirements are unsatisfiable.\n\nhint: The `--python-version` "
            "value (>=3.11) includes Python versions that are not supported by your dependencies.",
            ["numpy==2.5.0"],
            "numpy==2.5.0 wants Python >=3.12, and the image's base has 3.11",
            ("numpy==2.5.0",),
            id="python",
        ),
        pytest.param(
            "Because horovod==0.28.1 has no usable wheels and you require horovod==0.28.1, we can conclude that your "
            "requirements are unsatisfiable.\n\nhint: Wheels are required for `horovod`",
            ["horovod==0.28.1"],
            "horovod==0.28.1 has no wheel for the image's Python and platform",
            ("horovod==0.28.1",),
            id="no-wheel",
        ),
        pytest.param(
            "Because b>=2 depends on c>=3 and a==1 depends on b>=2, we can conclude that a==1 depends on c>=3. (1)\n"
            "         Because d==1 depends on c<3 and we know from (1) that a==1 depends on c>=3, we can conclude that "
            "a==1 and d==1 are incompatible.",
            ["a==1", "d==1"],
            "no version of c fits: b>=2 (for a==1) wants >=3, d==1 wants <3",
            ("a==1", "d==1"),
            id="through-another",
        ),
    ],
)
def test_a_proof_is_told_in_a_sentence(output: str, asked: list[str], sentence: str, involved: tuple[str, ...]) -> None:
    told = conflict.explain(HEAD + output, asked, "3.11")
    assert told is not None
    assert told.sentence == sentence
    assert told.requirements == involved


def test_words_of_another_form_are_not_guessed_at() -> None:
    assert conflict.explain("error: something new", ["torch==2.13.0"], "3.11") is None
