"""Tasks whose best learning rate is known, by trainings at full length: what the range test and tune are judged by."""
