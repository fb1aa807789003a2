"""How many folds of targets should judge a layer?"""

from experiments.fold_ablation.experiment import FoldAblation

__all__ = ["FoldAblation"]
