"""COCO's 53 classes of stuff: names and numbers, which a converted panoptic model does not hold."""

from perpixel.structures import Stuff

_LISTED = """
    banner:92 blanket:93 bridge:95 cardboard:100 counter:107 curtain:109 door-stuff:112 floor-wood:118 flower:119 fruit:122
    gravel:125 house:128 light:130 mirror-stuff:133 net:138 pillow:141 platform:144 playingfield:145 railroad:147 river:148
    road:149 roof:151 sand:154 sea:155 shelf:156 snow:159 stairs:161 tent:166 towel:168 wall-brick:171 wall-stone:175
    wall-tile:176 wall-wood:177 water-other:178 window-blind:180 window-other:181 tree-merged:184 fence-merged:185
    ceiling-merged:186 sky-other-merged:187 cabinet-merged:188 table-merged:189 floor-other-merged:190 pavement-merged:191
    mountain-merged:192 grass-merged:193 dirt-merged:194 paper-merged:195 food-other-merged:196 building-other-merged:197
    rock-merged:198 wall-other-merged:199 rug-merged:200
"""
_PAIRS = tuple(pair.rsplit(":", 1) for pair in _LISTED.split())
COCO_STUFF = Stuff(tuple(name for name, _ in _PAIRS), tuple(int(number) for _, number in _PAIRS))
"""In the order of their numbers, as detectron2 counts them."""
