"""Runs in an image: trains once unbroken, once with kill -9 at random moments, and prints both runs' results.

python drill.py MODULE KILLS SEED [ARGS…]
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

MODULE, KILLS, SEED = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ARGV = [sys.executable, "-P", "-m", MODULE, *sys.argv[4:]]
OUT = Path("/out")


def checkpoints(out: Path) -> set[str]:
    """Those that are whole."""
    return {path.name for path in (out / "checkpoints").glob("step-*.npz")}


dice = random.Random(SEED)
subprocess.run([*ARGV, "--out", str(OUT / "whole")], check=True, stdout=subprocess.DEVNULL)
killed = 0
while not (OUT / "broken" / "result.json").exists():
    before = checkpoints(OUT / "broken")
    process = subprocess.Popen([*ARGV, "--out", str(OUT / "broken")], stdout=subprocess.DEVNULL)
    while killed < KILLS and process.poll() is None:
        if checkpoints(OUT / "broken") - before:
            time.sleep(dice.random() * 0.2)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    code = process.wait()
    if code == -signal.SIGKILL:
        killed += 1
    elif code:
        sys.exit(f"{MODULE} ended with {code}")
results = [json.loads((OUT / name / "result.json").read_text()) for name in ("whole", "broken")]
losses = [[json.loads(line) for line in (OUT / name / "metrics.jsonl").open()] for name in ("whole", "broken")]
print(json.dumps({"killed": killed, "results": results, "losses": losses}))
