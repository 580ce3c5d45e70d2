"""The control plane's time limits, in seconds, where they can be seen together.

A cut-off node must end the job within 15 s of its last word: SILENCE + FAILURE_GRACE, and some time to decide.
After a rank's death all others must be gone within 5 s: FAILURE_GRACE, while SETTLE runs beside it.
"""

HEARTBEAT = 1.0
"""Between two pings of node 0 to every node."""
TICK = 0.1
"""Between two looks at the limits here."""
SILENCE = 8.0
"""Without a word: lost."""
SUSPICIOUS = 2.5
"""Without a word, two heartbeats missed: a failure elsewhere may be this node's loss."""
SETTLE = 1.0
"""To wait for reports of earlier failures while all that is known may be echoes."""
SETTLE_CAUSE = 0.3
"""The same once a real cause is known."""
FAILURE_GRACE = 2.0
"""Between SIGTERM and SIGKILL after a failure: ranks hang in a collective then and have nothing to save."""
LINGER = 4.0
"""Node 0 stays this long for others to take the verdict and leave."""
PROBLEM_WAIT = 10.0
"""A node that can't run waits this long for the others, only to tell them."""
HANDSHAKE = 5.0
"""From connecting to being a member, for both ends."""
NETWORK_LOOK = 0.5
"""Between two looks for the network that NCCL takes."""
FIRST_NEWS, NEWS = 2.0, 15.0
"""Until we say for whom we wait, and between two times."""
