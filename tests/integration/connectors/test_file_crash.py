from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from connector_deliveries import delivery, patient_payload
from outbox_store import make_store, open_store, put, states
from rounds import SOAK

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def test_kill_9_anywhere_leaves_one_line_for_each_delivery_in_order(tmp_path: Path):
    count = 300 if SOAK else 200
    with make_store(tmp_path) as store:
        put(
            store,
            [
                delivery(
                    destination="files",
                    key=f"{number % 7}:{number:03d}",
                    patient=f"chart-{number % 7}",
                    payload=patient_payload(f"MRN:{number}"),
                )
                for number in range(count)
            ],
        )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(HERE)])}
    kills = 0
    for seed in range(200):
        done = subprocess.run(
            [sys.executable, HERE / "file_courier.py", tmp_path, str(seed)],
            env=environment,
            check=False,
            timeout=600,
            capture_output=True,
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        kills += 1
    assert kills >= 5
    with open_store(tmp_path) as store:
        assert states(store, count) == ["delivered"] * count
    keys = [
        json.loads(line)["idempotency_key"]
        for path in sorted((tmp_path / "out").iterdir())
        for line in path.read_bytes().splitlines()
    ]
    assert [key for key, times in Counter(keys).items() if times != 1] == []
    assert len(keys) == count
    for patient in range(7):
        mine = [key for key in keys if key.startswith(f"{patient}:")]
        assert mine == sorted(mine)
