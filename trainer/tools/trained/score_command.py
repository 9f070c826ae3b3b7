"""Score a trained run on its test data, on another split, or on other data, with the loss and metrics of its training.

Examples:

    cadence test outputs/NAME
    cadence test outputs/NAME --split val --which last
    cadence test outputs/NAME data.path=elsewhere --json scores.json
    cadence test outputs/NAME data=mine --config-dir conf
"""

import json
from pathlib import Path

from trainer.tools.trained.options import add_data_options, data_of, loaded, parser_for_run
from trainer.tools.writable import check_new_file, write_new_file


def main(words: list[str] | None = None) -> None:
    """Score, and print the scores."""
    parser = parser_for_run(__doc__)
    add_data_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores there, too")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    options = parser.parse_intermixed_args(words)
    if options.json:
        check_new_file(options.json, (".json",), options.force)
    run = loaded(options)
    scores = run.test(data_of(run, options, "test"))
    print(f"{run.checkpoint}, after update {run.updates}")
    print("  ".join(f"{name} {value:.6g}" for name, value in scores.items()))
    if options.json:
        text = json.dumps(scores, indent=2) + "\n"
        write_new_file(options.json, lambda path: path.write_text(text, encoding="utf-8"))
