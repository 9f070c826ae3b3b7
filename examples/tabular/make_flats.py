"""Writes flats.csv: made-up flats, and whether each was let within a week."""

import csv
import math
import random
from pathlib import Path

DISTRICTS = ("harbour", "old town", "north", "east", "hill", "station", "park", "mills")
HEATING = ("gas", "district", "heat pump", "oil")


def flat(draw: random.Random) -> dict[str, object]:
    """A flat is let fast if its rent is low for its area, district and heating; three in a hundred are exceptions."""
    area, year = draw.uniform(25, 120), draw.randint(1900, 2024)
    district, heating, balcony = draw.choice(DISTRICTS), draw.choice(HEATING), draw.random() < 0.4
    fair = area * (9 + 2.5 * math.sin(1.7 * DISTRICTS.index(district))) + 60 * HEATING.index(heating) * (year < 1980)
    fair += 90 * balcony * (district in ("harbour", "park"))
    rent = fair * draw.uniform(0.6, 1.4)
    fast = (rent < fair) != (draw.random() < 0.03)
    return {
        **{"area": round(area, 1), "year": year, "rent": round(rent), "district": district, "heating": heating},
        **{"balcony": "yes" if balcony else "no", "let_fast": "yes" if fast else "no"},
    }


if __name__ == "__main__":
    generator = random.Random(0)
    rows = [flat(generator) for _ in range(2000)]
    with Path("flats.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
