"""Write the net of a trained run to a file for other programs.

NAME.pt is a state_dict and NAME.safetensors the same without code; NAME.pt2 is a program of torch.export, and NAME.onnx
a graph. Programs and graphs take batches of any size, and are compared with the net before the file is there.
Examples:

    cadence export outputs/NAME net.safetensors
    cadence export outputs/NAME net.pt2 --which last
    cadence export outputs/NAME net.onnx --force
"""

from pathlib import Path

from trainer.tools.trained.options import loaded, parser_for_run


def main(words: list[str] | None = None) -> None:
    """Export, and say what was written."""
    parser = parser_for_run(__doc__)
    parser.add_argument("out", type=Path, metavar="FILE", help="NAME.pt, .pth, .safetensors, .pt2 or .onnx")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    options = parser.parse_args(words)
    run = loaded(options)
    path = run.export(options.out, force=options.force)
    numbers = sum(parameter.numel() for parameter in run.net.parameters())
    print(f"{path}: {numbers:,} parameters of {run.checkpoint}, after update {run.updates}")
