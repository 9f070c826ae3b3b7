"""A table, made here, as the library TabularS3L reads it for its self-supervised LightningModules."""

from typing import Any

import numpy as np
import pandas as pd

from data.module import DataModule, Splits
from data.source import Workers


class MaskedTable(DataModule):
    """Rows of two categories and six numbers that follow from three hidden ones; the library masks them."""

    def read(self) -> Splits:
        from ts3l.utils.vime_utils import VIMEConfig, VIMEDataset

        draw = np.random.default_rng(0)
        hidden = draw.normal(size=(500, 3))
        numbers = hidden @ draw.normal(size=(3, 6)) + 0.1 * draw.normal(size=(500, 6))
        table: dict[str, Any] = {f"x{i}": column for i, column in enumerate(numbers.T)}
        table |= {"kind": (hidden[:, 0] > 0) * 1 + (hidden[:, 0] > 1) * 1, "side": (hidden[:, 1] > 0) * 1}
        frame = pd.DataFrame(table)
        config = VIMEConfig.__new__(VIMEConfig)
        config.p_m, config.K = 0.3, 3
        columns = {"continuous_cols": [f"x{i}" for i in range(6)], "category_cols": ["kind", "side"]}
        parts = (frame[:400], frame[400:])
        return Splits(*(Workers(VIMEDataset(part, config=config, **columns)) for part in parts))
