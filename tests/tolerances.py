"""The two tolerances of the tests."""

EXACT = {"rtol": 1e-9, "atol": 1e-11}  # float64, the same algebra
FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}  # rounding accumulates over about 1e3 sums
