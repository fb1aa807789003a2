"""One small file per method; a selector is a frozen dataclass of its options with a `select` method and the class facts
of `Selector`."""

from __future__ import annotations

from tarot.selectors.baselines import All, Oracle, Random, TargetOnly
from tarot.selectors.bids import Bids
from tarot.selectors.contract import Selector, Valuing, check_selector, needs_of
from tarot.selectors.doubly_greedy import DoublyGreedy
from tarot.selectors.dsdm import Dsdm
from tarot.selectors.dsir import Dsir
from tarot.selectors.el2n import El2n
from tarot.selectors.facility_location import FacilityLocation
from tarot.selectors.herding import Herding
from tarot.selectors.influence import Influence
from tarot.selectors.k_center import KCenter
from tarot.selectors.knn_shapley import KnnShapley
from tarot.selectors.lava import Lava
from tarot.selectors.less import Less
from tarot.selectors.options import described, unknown_option
from tarot.selectors.ordered import Ordered
from tarot.selectors.prototypes import Prototypes
from tarot.selectors.round_robin import RoundRobin
from tarot.selectors.sava import BatchwiseLava, Sava
from tarot.selectors.tarot_exact import TarotExact
from tarot.selectors.tarot_fixed import TarotFixed
from tarot.selectors.tarot_otm import TarotOTM
from tarot.selectors.tracin import TracIn
from tarot.selectors.tsds import Tsds
from tarot.selectors.uot import Uot
from tarot.selectors.wasserstein_coreset import WassersteinCoreset

SELECTORS: dict[str, type[Selector]] = {
    "all": All,
    "target_only": TargetOnly,
    "oracle": Oracle,
    "batchwise_lava": BatchwiseLava,
    "bids": Bids,
    "doubly_greedy": DoublyGreedy,
    "dsdm": Dsdm,
    "dsir": Dsir,
    "el2n": El2n,
    "facility_location": FacilityLocation,
    "herding": Herding,
    "influence": Influence,
    "k_center": KCenter,
    "knn_shapley": KnnShapley,
    "lava": Lava,
    "less": Less,
    "prototypes": Prototypes,
    "random": Random,
    "round_robin": RoundRobin,
    "sava": Sava,
    "tarot_exact": TarotExact,
    "tarot_fixed": TarotFixed,
    "tarot_otm": TarotOTM,
    "tracin": TracIn,
    "tsds": Tsds,
    "uot": Uot,
    "wasserstein_coreset": WassersteinCoreset,
}

REFERENCES = tuple(name for name, kind in SELECTORS.items() if kind.reference)
"""The arms that others are compared with."""

__all__ = [
    "REFERENCES",
    "SELECTORS",
    "All",
    "BatchwiseLava",
    "Bids",
    "DoublyGreedy",
    "Dsdm",
    "Dsir",
    "El2n",
    "FacilityLocation",
    "Herding",
    "Influence",
    "KCenter",
    "KnnShapley",
    "Lava",
    "Less",
    "Oracle",
    "Ordered",
    "Prototypes",
    "Random",
    "RoundRobin",
    "Sava",
    "Selector",
    "TargetOnly",
    "TarotExact",
    "TarotFixed",
    "TarotOTM",
    "TracIn",
    "Tsds",
    "Uot",
    "Valuing",
    "WassersteinCoreset",
    "check_selector",
    "described",
    "needs_of",
    "unknown_option",
]
