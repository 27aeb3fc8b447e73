"""One script a claim of speed: both sides in one session, medians and ratios, the machine beside them."""
