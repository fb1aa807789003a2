"""Cityscapes' classes: which of its label ids, or of the colours of its labels, are which of the 19 that count.

GTA5's labels use the same ids and colours; it has an id of its own for licence plates.
"""

from __future__ import annotations

from tasks.segmentation.scenes import IGNORE, Classes

_TRAINED = {  # label id -> name, colour; in the order of the train ids
    7: ("road", (128, 64, 128)),
    8: ("sidewalk", (244, 35, 232)),
    11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)),
    13: ("fence", (190, 153, 153)),
    17: ("pole", (153, 153, 153)),
    19: ("traffic light", (250, 170, 30)),
    20: ("traffic sign", (220, 220, 0)),
    21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)),
    23: ("sky", (70, 130, 180)),
    24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)),
    26: ("car", (0, 0, 142)),
    27: ("truck", (0, 0, 70)),
    28: ("bus", (0, 60, 100)),
    31: ("train", (0, 80, 100)),
    32: ("motorcycle", (0, 0, 230)),
    33: ("bicycle", (119, 11, 32)),
}
# Void ones: out of view, static (twice: its colour changed), dynamic, ground, parking, rail track, guard rail, bridge,
# tunnel, caravan, trailer. A polegroup has the colour of a pole, a licence plate that of a car.
_VOID = [(0, 0, 0), (20, 20, 20), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180)]
_VOID += [(150, 100, 100), (150, 120, 90), (0, 0, 90), (0, 0, 110)]

CLASSES = Classes(tuple(name for name, _ in _TRAINED.values()), tuple(colour for _, colour in _TRAINED.values()))
LABEL_IDS = dict.fromkeys(range(35), IGNORE) | {label: train for train, label in enumerate(_TRAINED)}
COLOURS = dict.fromkeys(_VOID, IGNORE) | {colour: train for train, colour in enumerate(CLASSES.colours)}
