from __future__ import annotations

from stackctl.jobs import compose
from stackctl.jobs import job as jobs
from stackctl.jobs.compose import Mount


def document(**given: object) -> dict[str, object]:
    job = jobs.make(**{"name": "a", "workload": "gpt", "nodes": 2, "procs": 2, **given})  # type: ignore[arg-type]
    return compose.document(
        job,
        image="stack-pytorch:cpu",
        user="1000:1000",
        volumes=compose.mounts(job, out="/run", workdir="/code"),
        gpus=["4", "5", "6", "7"],
    )


def node(made: dict[str, object], name: str = "node-0") -> dict[str, object]:
    services = made["services"]
    assert isinstance(services, dict)
    row = services[name]
    assert isinstance(row, dict)
    return row


def test_a_service_a_node_with_least_privilege() -> None:
    made = document()
    assert sorted(made["services"]) == ["node-0", "node-1"]  # type: ignore[call-overload]
    row = node(made, "node-1")
    assert row["user"] == "1000:1000"
    assert row["cap_drop"] == ["ALL"]
    assert row["security_opt"] == ["no-new-privileges:true"]
    assert row["shm_size"] == "1gb"
    assert row["stop_grace_period"] == "70s", "longer than the launcher's own grace"
    assert row["restart"] == "no"
    assert "ulimits" not in row
    assert row["environment"]["STACK_RENDEZVOUS"] == "node-0:29400"  # type: ignore[index]


def test_the_token_is_not_in_the_file() -> None:
    assert node(document())["environment"]["STACK_TOKEN"] == "${STACK_TOKEN:?}"  # type: ignore[index]


def test_a_workload_reads_the_working_folder_and_an_own_command_may_write_it() -> None:
    def read_only(made: dict[str, object]) -> list[tuple[str, str, bool]]:
        return [(row["source"], row["target"], row["read_only"]) for row in node(made)["volumes"]]  # type: ignore[attr-defined]

    assert read_only(document()) == [("/run", "/out", False), ("/code", "/workspace", True)]
    own = document(workload="", arguments=["python", "x.py"])
    assert read_only(own) == [("/run", "/out", False), ("/code", "/workspace", False)]


def test_gpus_are_dealt_out_and_memlock_is_raised() -> None:
    row = node(document(procs=None, gpus=2), "node-1")
    assert row["ulimits"] == {"memlock": -1}
    assert row["deploy"]["resources"]["reservations"]["devices"] == [  # type: ignore[index]
        {"driver": "nvidia", "device_ids": ["6", "7"], "capabilities": ["gpu"]}
    ]


def test_a_dollar_sign_reaches_the_rank() -> None:
    row = node(document(workload="", arguments=["sh", "-c", "echo $RANK"], env={"X": "$HOME"}))
    assert row["entrypoint"] == ["/usr/bin/tini", "--"]
    assert row["command"][-1] == "echo $$RANK"  # type: ignore[index]
    assert row["environment"]["X"] == "$$HOME"  # type: ignore[index]


def test_a_folder_of_any_name_is_mounted_as_it_is_and_never_made() -> None:
    assert Mount("/a b:c$HOME", "/out").entry == {
        "type": "bind",
        "source": "/a b:c$$HOME",
        "target": "/out",
        "read_only": False,
        "bind": {"create_host_path": False},
    }


def test_fetched_data_sets_are_shown_to_every_node() -> None:
    job = jobs.make(name="pictures", workload="cnn", nodes=2)
    volumes = compose.mounts(job, out="/run", workdir="/code", data="/cache/data")
    made = compose.document(job, image="i", user="1:1", volumes=volumes, more={"STACK_DATA": compose.DATA})
    for name in ("node-0", "node-1"):
        row = node(made, name)
        assert isinstance(row["volumes"], list)
        assert row["volumes"][-1] == {
            "type": "bind",
            "source": "/cache/data",
            "target": "/data",
            "read_only": True,
            "bind": {"create_host_path": False},
        }
        assert isinstance(row["environment"], dict)
        assert row["environment"]["STACK_DATA"] == "/data"
    assert len(compose.mounts(job, out="/run", workdir="/code")) == 2
