"""A job that was interrupted by itself, as by `trainer.max_time`, has not failed: the sweep goes on with it later."""

import json
import sys
import time

import pytest

from trainer.sweep.job import Job
from trainer.sweep.summary import sweep_failed

ENDS = "import json, sys; open('result.json', 'w').write(json.dumps({'status': %r, 'error': 'as told'})); sys.exit(%d)"


def ended(folder, status, code):
    """A job whose process leaves this status and exit code."""
    words = f"import os; os.chdir({str(folder)!r}); {ENDS % (status, code)}"
    job = Job(0, ["lr=1"], folder, [sys.executable, "-c", words], label="lr=1")
    job.start({})
    end = time.monotonic() + 60
    while not job.ended(None) and time.monotonic() < end:
        time.sleep(0.02)
    return job


@pytest.mark.parametrize(
    ("status", "code", "becomes"),
    [
        ("interrupted", 142, "interrupted"),
        ("interrupted", 130, "interrupted"),
        ("interrupted", 1, "failed"),
        ("failed", 142, "failed"),
    ],
)
def test_the_exit_code_and_the_result_together_say_so(tmp_path, status, code, becomes):
    job = ended(tmp_path, status, code)
    assert job.status == becomes
    assert job.error == ("as told" if becomes == "interrupted" else f"exit code {code}: as told")


def test_a_sweep_with_such_jobs_is_not_done_and_says_how_to_go_on(tmp_path):
    job = ended(tmp_path, "interrupted", 142)
    told = str(sweep_failed([job], tmp_path))
    assert told.startswith("1 of 1 jobs were interrupted: job 0 lr=1; go on with resume=auto; see ")
    assert json.dumps(job.record())
