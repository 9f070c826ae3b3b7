"""A trained run: its net, history and scores; predictions and exports."""
