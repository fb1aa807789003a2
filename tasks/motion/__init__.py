"""Motion prediction: AutoBots selects, Wayformer learns."""
