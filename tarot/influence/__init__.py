"""Influence functions: curvature of the loss, and the influence of every candidate."""

from tarot.influence.scores import Influences, influence_scores

__all__ = ["Influences", "influence_scores"]
