"""Numbers and metrics in words, as the page writes them."""


def number(value: float) -> str:
    """Return a number short enough for a cell.

    >>> number(0.05512), number(1234567.0), number(0.0), number(12.3456)
    ('0.0551', '1,234,567', '0', '12.35')
    """
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 4 if abs(value) < 1 else 2
    return f"{value:.{digits}f}"


def signed(value: float) -> str:
    """Return a difference with its sign.

    >>> signed(0.00321), signed(-2.5), signed(0.0)
    ('+0.0032', '−2.50', '0')
    """
    return _sign(value) + number(abs(value))


def percent(value: float) -> str:
    """Return a change as a percentage with its sign.

    >>> percent(0.1012), percent(-0.003), percent(0.0)
    ('+10.1%', '−0.3%', '0.0%')
    """
    return f"{_sign(value)}{abs(value):.1%}"


def p_value(value: float) -> str:
    """Return a p-value as papers write it.

    >>> p_value(0.0004), p_value(0.0312), p_value(1.0)
    ('< 0.001', '0.031', '1')
    """
    return "< 0.001" if value < 0.001 else f"{value:.3f}".rstrip("0").rstrip(".")


def explained(metric: str) -> str:
    """Return what a metric is, in a few words.

    >>> explained("recall@10")
    'share of the wanted items among the first 10'
    """
    name, _, k = metric.partition("@")
    return _WORDS[name].format(k=k) if name in _WORDS else ""


def _sign(value: float) -> str:
    return "+" if value > 0 else "−" if value < 0 else ""


_WORDS = {
    "ndcg": "found items, those further up counting more",
    "recall": "share of the wanted items among the first {k}",
    "precision": "share of the first {k} that was wanted",
    "map": "precision at each found item",
    "mrr": "one over the place of the first found item",
    "hit_rate": "share of users with any wanted item among the first {k}",
    "auc": "share of pairs in the right order; the rest behind {k} at random",
    "popularity": "share of users who had the average listed item",
    "popularity_lift": "how many times as popular as a mean item of the catalogue",
    "novelty": "surprise of the listed items, in bits",
    "diversity": "share of a list's pairs that differ in category",
    "coverage": "share of the catalogue that is shown to anyone",
    "gini": "how unequally items are shown: 0 alike, 1 one to all",
}
