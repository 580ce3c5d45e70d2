"""What a run answers in Python, and how it shows itself in a notebook."""

from __future__ import annotations

import html
from typing import Any

import msgspec

from stackctl.errors import JobFailed
from stackctl.runs.handle import Outcome as Ended
from stackctl.runs.handle import Told
from stackctl.runs.states import State


class Node(msgspec.Struct, frozen=True):
    """A node of a run on a cluster: its index, what it does, on which machine, in which pod."""

    node: int
    state: str
    host: str
    pod: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a run fares. It shows itself in a notebook.

    Args:
        name: The run's name.
        state: `queued`, `pending`, `running`, `restarting`, `succeeded`, `failed`, `stopped`, `unknown` or `gone`.
        attempt: The newest attempt; the first is 1.
        text: All of it, as `stackctl status` says it.
        nodes: Of a run on a cluster, its nodes.
        result: What the job left in `result.json`, if it did.
        failure: Why it failed, as `failure.json` has it: `sentence`, `rank`, `exit_code`, `last_lines` and more.
    """

    name: str
    state: State
    attempt: int
    text: str
    nodes: tuple[Node, ...] = ()
    result: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        cells = [[row.node, row.state, row.host, row.pod] for row in self.nodes]
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in cells)
        head = "<tr><th>node</th><th>state</th><th>host</th><th>pod</th></tr>"
        table = f"<table>{head}{rows}</table>" if rows else ""
        title = f"<b>{html.escape(self.name)}</b>: {self.state}, attempt {self.attempt}"
        return f"<div>{title}{table}<pre>{html.escape(self._more())}</pre></div>"

    def _repr_markdown_(self) -> str:
        """As what renders Markdown shows it."""
        lines = [f"**{self.name}**: {self.state}, attempt {self.attempt}", ""]
        if self.nodes:
            lines += ["| node | state | host | pod |", "|---|---|---|---|"]
            lines += [f"| {row.node} | {row.state} | {row.host} | {row.pod} |" for row in self.nodes]
        return "\n".join([*lines, "", "```text", self._more(), "```"])

    def _more(self) -> str:
        """What of the text is neither the title nor the table."""
        lines = self.text.splitlines()[1:]
        begin = next((number for number, line in enumerate(lines) if line.startswith("NODE ")), len(lines))
        return "\n".join(lines[:begin] + lines[begin + 1 + len(self.nodes) :])


class Explanation(msgspec.Struct, frozen=True):
    """Why a run waits or has failed.

    Args:
        cause: One word, as `quota` or `unschedulable`; of a run of this machine its state.
        text: A paragraph with the evidence.
        data: The same, as `stackctl explain --json` prints it.
    """

    cause: str
    text: str
    data: dict[str, Any]

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        """As what renders Markdown shows it."""
        return f"```text\n{self.text}\n```"


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended.

    Args:
        state: `succeeded`, `failed`, `stopped`, `unknown` or `gone`.
        text: What it came to, or why it failed.
        hint: What to do, where it failed.
    """

    state: State
    text: str
    hint: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether it did."""
        return self.state == "succeeded"

    def check(self) -> None:
        """See that it succeeded.

        Raises:
            JobFailed: It did not; says why.
        """
        if not self.succeeded:
            raise JobFailed(self.text, hint=self.hint)

    def __str__(self) -> str:
        return self.text


def status_of(name: str, told: Told) -> Status:
    """A run's status, by what its handle tells."""
    data = msgspec.to_builtins(told.data)
    about = data.get("run", data)
    nodes = tuple(Node(row["node"], row["state"], row["host"], row["pod"]) for row in data.get("nodes", ()))
    return Status(
        name=name,
        state=about["state"],
        attempt=about.get("attempt", 1),
        text=told.text,
        nodes=nodes,
        result=data.get("result"),
        failure=data.get("failure"),
    )


def outcome_of(found: Ended) -> Outcome:
    """A run's outcome, by what its handle found."""
    return Outcome(found.state, found.text, found.hint)
