"""A new command collects no cycles until its config is there; a process with objects of others is left alone."""

import subprocess
import sys

BEGIN = "import gc, sys; from trainer.distributed.launch.starting import pause_collector, resume_collector;"


def printed(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_collector_rests_until_the_config_is_composed() -> None:
    code = (
        "pause_collector(); print(gc.isenabled()); resume_collector(); print(gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    assert printed(code) == ["False", "True", "True"]


def test_it_is_left_alone_where_torch_is_imported_or_it_is_off() -> None:
    code = "sys.modules['torch'] = sys; pause_collector(); print(gc.isenabled()); resume_collector();"
    assert printed(f"{code} print(gc.get_freeze_count())") == ["True", "0"]
    assert printed("gc.disable(); pause_collector(); resume_collector(); print(gc.isenabled())") == ["False"]


def test_a_command_draws_with_matplotlib_as_it_is() -> None:
    code = "from trainer.tools.drawing import needed_for_pictures, new_figure; needed_for_pictures(); new_figure(2, 2);"
    shown = "from matplotlib import artist, lines; print('linewidth' in artist.kwdoc(lines.Line2D))"
    assert printed(f"{code} {shown}") == ["True"]
