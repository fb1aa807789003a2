"""One small file per method; a selector is a frozen dataclass of its options with a `select` method and the class facts
of `Selector`."""

from __future__ import annotations

from tarot.selectors.baselines import All, Oracle, Random, TargetOnly
from tarot.selectors.contract import Selector, Valuing, check_selector
from tarot.selectors.dsdm import Dsdm
from tarot.selectors.el2n import El2n
from tarot.selectors.herding import Herding
from tarot.selectors.influence import Influence
from tarot.selectors.k_center import KCenter
from tarot.selectors.knn_shapley import KnnShapley
from tarot.selectors.lava import Lava
from tarot.selectors.less import Less
from tarot.selectors.options import described
from tarot.selectors.prototypes import Prototypes
from tarot.selectors.sava import BatchwiseLava, Sava
from tarot.selectors.tarot_exact import TarotExact
from tarot.selectors.tarot_fixed import TarotFixed
from tarot.selectors.tarot_otm import TarotOTM
from tarot.selectors.tracin import TracIn
from tarot.selectors.tsds import Tsds
from tarot.selectors.wasserstein_coreset import WassersteinCoreset

SELECTORS: dict[str, type[Selector]] = {
    "all": All,
    "target_only": TargetOnly,
    "oracle": Oracle,
    "batchwise_lava": BatchwiseLava,
    "dsdm": Dsdm,
    "el2n": El2n,
    "herding": Herding,
    "influence": Influence,
    "k_center": KCenter,
    "knn_shapley": KnnShapley,
    "lava": Lava,
    "less": Less,
    "prototypes": Prototypes,
    "random": Random,
    "sava": Sava,
    "tarot_exact": TarotExact,
    "tarot_fixed": TarotFixed,
    "tarot_otm": TarotOTM,
    "tracin": TracIn,
    "tsds": Tsds,
    "wasserstein_coreset": WassersteinCoreset,
}

REFERENCES = tuple(name for name, kind in SELECTORS.items() if kind.reference)
"""The arms that others are compared with."""

__all__ = [
    "REFERENCES",
    "SELECTORS",
    "All",
    "BatchwiseLava",
    "Dsdm",
    "El2n",
    "Herding",
    "Influence",
    "KCenter",
    "KnnShapley",
    "Lava",
    "Less",
    "Oracle",
    "Prototypes",
    "Random",
    "Sava",
    "Selector",
    "TargetOnly",
    "TarotExact",
    "TarotFixed",
    "TarotOTM",
    "TracIn",
    "Tsds",
    "Valuing",
    "WassersteinCoreset",
    "check_selector",
    "described",
]
