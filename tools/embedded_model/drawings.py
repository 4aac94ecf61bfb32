"""The project's own drawings: SVG for the categories that no openly licensed icon set draws well.

Each category is one parametric drawing with several variants (colours, proportions, details), some trained on, others held out.
View box 100 x 100, white paper.  Licence: that of the project (MIT).
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin


def _svg(body: str, tilt: float = 0.0) -> str:
    """Wrap a body in a 100 x 100 SVG, turned by `tilt` degrees about its centre."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" width="256" height="256">'
        f'<g transform="rotate({tilt} 50 50)">{body}</g></svg>'
    )


def iron(variant: int) -> str:
    """A clothes iron seen from the side: sole plate, body, handle."""
    body, dark, sole = [
        ("#3d8bfd", "#1b4f9c", "#9aa4ad"),
        ("#e4572e", "#8f2d12", "#8d99a6"),
        ("#22a699", "#0f5f57", "#b0b8bf"),
        ("#7b5bd6", "#43308a", "#98a2ab"),
        ("#f2a541", "#8a5410", "#8d99a6"),
        ("#4c6a92", "#22344d", "#b4bcc4"),
    ][variant]
    rise = (0, 3, -2, 2, -3, 4)[variant]
    return _svg(
        f'<path d="M4 76 Q22 {48 - rise} 52 {44 - rise} L88 {44 - rise} Q94 {44 - rise} 95 52 L97 76 Z" fill="{body}"/>'
        f'<path d="M2 76 H98 V83 Q98 85 96 85 H4 Q1 85 2 76 Z" fill="{sole}"/>'
        f'<path d="M34 {48 - rise} Q40 {22 - rise} 62 {20 - rise} L84 {20 - rise} Q93 {20 - rise} 93 {30 - rise} L93 {47 - rise} L83 {47 - rise}'
        f' L83 {31 - rise} L62 {31 - rise} Q48 {31 - rise} 44 {47 - rise} Z" fill="{dark}"/>'
        f'<circle cx="66" cy="60" r="6" fill="#ffffff"/><circle cx="66" cy="60" r="2.6" fill="{dark}"/>'
    )


def clownfish(variant: int) -> str:
    """An anemone fish: orange, three white bands edged in black."""
    orange, edge = [
        ("#f47a1f", "#2b2b2b"),
        ("#ff8c2e", "#3a2a1c"),
        ("#ef6a12", "#1f1f2b"),
        ("#ff7a33", "#222222"),
        ("#f58a3a", "#33271e"),
        ("#e8641b", "#2b2b2b"),
    ][variant]
    tall = (0, 3, -2, 2, -1, 4)[variant]
    up, down = 26 - tall, 74 + tall
    return _svg(
        f'<path d="M74 50 L96 {32 - tall} Q92 50 96 {68 + tall} Z" fill="{orange}" stroke="{edge}" stroke-width="2.5"/>'
        f'<path d="M36 {up + 5} Q50 {up - 14} 66 {up + 9} Z" fill="{orange}" stroke="{edge}" stroke-width="2.5"/>'
        f'<path d="M42 {down - 4} Q52 {down + 13} 64 {down - 9} Z" fill="{orange}" stroke="{edge}" stroke-width="2.5"/>'
        f'<path d="M5 50 Q20 {up} 46 {up} Q70 {up} 80 50 Q70 {down} 46 {down} Q20 {down} 5 50 Z" fill="{orange}"/>'
        f'<path d="M27 {up + 7} Q36 50 27 {down - 7} L37 {down - 2} Q46 50 37 {up + 2} Z" fill="#fff" stroke="{edge}" stroke-width="2.5"/>'
        f'<path d="M52 {up} Q60 50 52 {down} L62 {down - 4} Q70 50 62 {up + 4} Z" fill="#fff" stroke="{edge}" stroke-width="2.5"/>'
        f'<path d="M5 50 Q20 {up} 46 {up} Q70 {up} 80 50 Q70 {down} 46 {down} Q20 {down} 5 50 Z" fill="none" stroke="{edge}" stroke-width="2.5"/>'
        f'<circle cx="18" cy="46" r="5.5" fill="#fff"/><circle cx="17" cy="46" r="3.4" fill="#111"/>'
    )


def moka_pot(variant: int) -> str:
    """An espresso maker for the stove: boiler, waist, upper pot with spout, handle, knob."""
    light, shade, handle = [
        ("#c9d1d8", "#8f9aa3", "#26262b"),
        ("#d9dee2", "#9aa5ad", "#4a2a18"),
        ("#b9c3cb", "#7f8b95", "#1d1d24"),
        ("#cfd6dc", "#929da6", "#33333a"),
        ("#dfe4e8", "#a3adb5", "#2a1c16"),
        ("#c0c9d0", "#8792a0", "#222a33"),
    ][variant]
    wide = (0, 3, -2, 2, -3, 1)[variant]
    return _svg(
        f'<path d="M{22 - wide} 95 L{30 - wide} 60 H66 L{74 + wide} 95 Z" fill="{light}"/><path d="M52 60 H66 L{74 + wide} 95 H56 Z" fill="{shade}"/>'
        f'<rect x="28" y="53" width="40" height="8" rx="2" fill="{shade}"/>'
        f'<path d="M32 53 L{24 - wide} 22 L{14 - wide} 14 L30 17 H70 L64 53 Z" fill="{light}"/><path d="M52 17 H70 L64 53 H54 Z" fill="{shade}"/>'
        f'<path d="M27 17 Q48 4 72 17 Z" fill="{shade}"/><circle cx="49" cy="7" r="5" fill="{handle}"/>'
        f'<path d="M68 21 L92 21 Q95 21 94 25 L88 58 L80 58 L84 31 L67 31 Z" fill="{handle}"/>'
    )


def golf_ball(variant: int) -> str:
    """A dimpled white ball on a tee in the grass."""
    tee, grass, dimple = [
        ("#e4572e", "#4caf50", "#c4ccd4"),
        ("#f2a541", "#3d9a46", "#bcc6cf"),
        ("#d23c77", "#57b85b", "#c9d0d8"),
        ("#3d8bfd", "#45a84b", "#c0c9d2"),
        ("#8a5a2b", "#62b04a", "#b8c2cc"),
        ("#e0392b", "#2f9e5b", "#c6ced6"),
    ][variant]
    radius = (31, 33, 29, 32, 30, 28)[variant]
    centre = 38
    dots = []
    for row in range(-3, 4):
        for column in range(-3, 4):
            x, y = 9.6 * column + (4.8 if row % 2 else 0), 8.6 * row
            if x * x + y * y < (radius - 4) ** 2:
                dots.append(f'<circle cx="{50 + x:.1f}" cy="{centre + y:.1f}" r="2.7" fill="{dimple}"/>')
    return _svg(
        f'<path d="M0 100 V90 Q25 82 50 88 T100 88 V100 Z" fill="{grass}"/>'
        f'<path d="M38 {centre + radius - 3} H62 L54 92 H46 Z" fill="{tee}"/>'
        f'<circle cx="50" cy="{centre}" r="{radius}" fill="#f7f9fb" stroke="#9aa6b2" stroke-width="2.5"/>' + "".join(dots)
    )


def missile(variant: int) -> str:
    """A guided missile: slim body, pointed warhead, two pairs of fins."""
    body, nose, fin = [
        ("#6f8058", "#d23b2f", "#47533a"),
        ("#8a9299", "#c8322b", "#535b63"),
        ("#7c8b5f", "#e0b030", "#4b563a"),
        ("#9aa3a8", "#d9482b", "#5b646b"),
        ("#66795a", "#b92d2d", "#3d4a35"),
        ("#7f8a70", "#d6402f", "#4a5240"),
    ][variant]
    tilt = (40, 44, 36, 42, 38, 46)[variant]
    return _svg(
        f'<path d="M41 22 Q43 6 50 -6 Q57 6 59 22 Z" fill="{nose}"/><rect x="41" y="22" width="18" height="72" fill="{body}"/>'
        f'<path d="M41 74 L22 100 H41 Z M59 74 L78 100 H59 Z" fill="{fin}"/><path d="M41 34 L29 48 H41 Z M59 34 L71 48 H59 Z" fill="{fin}"/>'
        '<rect x="41" y="26" width="18" height="4" fill="#f4f4f4"/><rect x="41" y="60" width="18" height="4" fill="#f4f4f4"/>'
        '<path d="M43 94 H57 L55 101 H45 Z" fill="#33373b"/>',
        tilt,
    )


def pool_table(variant: int) -> str:
    """A pool table from above: wooden rim, green cloth, six pockets, balls and a cue."""
    rim, cloth = [
        ("#8a4b22", "#1f9d55"),
        ("#6b3a1c", "#18894a"),
        ("#a05a2c", "#2aa860"),
        ("#7a4424", "#1a9a63"),
        ("#93502a", "#23934a"),
        ("#5f331a", "#2b9e58"),
    ][variant]
    balls = ["#f4d03f", "#d63031", "#2d6cdf", "#e67e22", "#6c3483", "#111111"]
    parts = [
        f'<rect x="2" y="20" width="96" height="60" rx="6" fill="{rim}"/><rect x="10" y="28" width="80" height="44" fill="{cloth}"/>'
    ]
    for x in (11, 50, 89):
        parts += [f'<circle cx="{x}" cy="{y}" r="5" fill="#15171a"/>' for y in (29, 71)]
    left = (58, 60, 56, 59, 57, 61)[variant]
    spot = 0
    for column in range(3):
        for row in range(column + 1):
            x, y = left + 8 * column, 50 + 8.6 * (row - column / 2)
            parts.append(f'<circle cx="{x}" cy="{y}" r="4.2" fill="{balls[(spot + variant) % 6]}"/>')
            spot += 1
    parts.append('<circle cx="34" cy="50" r="4.2" fill="#ffffff"/>')
    slope = (8, -6, 5, -8, 10, 3)[variant]
    parts.append(f'<path d="M4 {50 + slope} L28 {50 + slope / 4}" stroke="#f0c987" stroke-width="3"/>')
    return _svg("".join(parts))


def mailbag(variant: int) -> str:
    """A postal satchel: flap, strap, an envelope on the front."""
    leather, flap, strap = [
        ("#a8703a", "#7d4f24", "#5a3817"),
        ("#b47c45", "#8a5a2b", "#63401c"),
        ("#9a6433", "#70451f", "#4d2f14"),
        ("#3f6fa8", "#2c507d", "#1d3756"),
        ("#a3763f", "#7a5526", "#573b19"),
        ("#b06f3c", "#824c22", "#5d3615"),
    ][variant if variant != 3 else 4]
    drop = (0, 3, -2, 2, 4, -3)[variant]
    return _svg(
        f'<path d="M20 44 Q20 6 50 6 Q80 6 80 44" fill="none" stroke="{strap}" stroke-width="6"/>'
        f'<rect x="10" y="38" width="80" height="56" rx="8" fill="{leather}"/>'
        f'<path d="M8 38 Q8 34 12 34 H88 Q92 34 92 38 V{52 + drop} Q50 {64 + drop} 8 {52 + drop} Z" fill="{flap}"/>'
        f'<rect x="30" y="{50 + drop}" width="40" height="30" rx="2" fill="#fffdf5" stroke="{strap}" stroke-width="2"/>'
        f'<path d="M30 {51 + drop} L50 {68 + drop} L70 {51 + drop}" fill="none" stroke="#c0392b" stroke-width="3"/>'
    )


def convertible(variant: int) -> str:
    """An open car from the side: no roof, raked windscreen, two seats."""
    paint, dark = [
        ("#e23b3b", "#a51f1f"),
        ("#2f7de1", "#1c4f96"),
        ("#f0b429", "#b57f0c"),
        ("#d8315b", "#8f1838"),
        ("#1fa187", "#0f6a58"),
        ("#e8672c", "#a5420f"),
    ][variant]
    low = (0, 2, -2, 1, -1, 3)[variant]
    wheel = "".join(
        f'<circle cx="{x}" cy="72" r="11" fill="#26282c"/><circle cx="{x}" cy="72" r="5" fill="#cfd5da"/>' for x in (25, 76)
    )
    return _svg(
        f'<path d="M58 {46 + low} L45 {27 + low}" stroke="#5b646c" stroke-width="4"/><path d="M56 {46 + low} L45 {30 + low} L44 {46 + low} Z" fill="#a9d8f5"/>'
        f'<path d="M64 {48 + low} Q60 {34 + low} 68 {34 + low} Q73 {34 + low} 73 {48 + low} Z" fill="#4b3527"/>'
        f'<path d="M52 {48 + low} Q49 {36 + low} 55 {36 + low} Q60 {36 + low} 60 {48 + low} Z" fill="#5c4331"/>'
        f'<path d="M3 70 Q2 {54 + low} 14 {50 + low} L42 {45 + low} H90 Q98 {48 + low} 97 70 Q97 74 93 74 H8 Q3 74 3 70 Z" fill="{paint}"/>'
        f'<path d="M4 64 H97 V69 H3 Z" fill="{dark}"/><rect x="4" y="56" width="8" height="5" rx="2" fill="#fff3b0"/>'
        f'<path d="M44 {46 + low} V64 M68 {46 + low} V64" stroke="{dark}" stroke-width="1.6"/>' + wheel
    )


def folding_chair(variant: int) -> str:
    """A folding chair from the side: crossed legs, canvas seat and back."""
    frame, canvas = [
        ("#8d6a45", "#2f7de1"),
        ("#7d8790", "#e23b3b"),
        ("#9c7448", "#22a06b"),
        ("#6f7a84", "#f0a52b"),
        ("#86623d", "#d8315b"),
        ("#5e6872", "#2a9db5"),
    ][variant]
    lean = (0, 3, -2, 2, -3, 4)[variant]
    return _svg(
        f'<path d="M{24 - lean} 6 L80 95 M78 52 L26 95" stroke="{frame}" stroke-width="6.5" stroke-linecap="round"/>'
        f'<path d="M34 84 H70" stroke="{frame}" stroke-width="4"/>'
        f'<path d="M{17 - lean} 6 L{28 - lean} 2 L52 38 L42 43 Z" fill="{canvas}"/>'
        f'<path d="M40 47 H86 Q90 47 90 51 V55 H46 Z" fill="{canvas}"/>'
    )


def pajama(variant: int) -> str:
    """Striped night clothes: a buttoned jacket above trousers."""
    cloth, stripe = [
        ("#9cc9f5", "#3a6fc4"),
        ("#f7b8c9", "#c9447a"),
        ("#b9e3c0", "#3c9a5f"),
        ("#c9b8f0", "#6a4bc0"),
        ("#f9d9a0", "#c98a22"),
        ("#a8dce6", "#2b8aa3"),
    ][variant]
    cuff = (0, 2, -2, 1, 3, -1)[variant]
    jacket = f"M34 6 L50 12 L66 6 L92 {30 + cuff} L82 {42 + cuff} L72 34 V56 H28 V34 L18 {42 + cuff} L8 {30 + cuff} Z"
    legs = "M29 58 H71 L78 97 H56 L50 72 L44 97 H22 Z"
    stripes = "".join(f'<path d="M{x} 0 V100" stroke="{stripe}" stroke-width="2.6"/>' for x in range(6, 100, 8))
    return _svg(
        f'<clipPath id="c"><path d="{jacket} {legs}"/></clipPath><path d="{jacket}" fill="{cloth}"/><path d="{legs}" fill="{cloth}"/>'
        f'<g clip-path="url(#c)">{stripes}</g>'
        f'<path d="M38 7 L50 24 L62 7" fill="none" stroke="#ffffff" stroke-width="4"/><path d="M50 24 V56" stroke="#fff" stroke-width="4"/>'
        f'<path d="{jacket}" fill="none" stroke="{stripe}" stroke-width="2"/><path d="{legs}" fill="none" stroke="{stripe}" stroke-width="2"/>'
        + "".join(f'<circle cx="50" cy="{y}" r="1.8" fill="{stripe}"/>' for y in (30, 40, 50))
    )


def mitten(variant: int) -> str:
    """A knitted mitten: palm, thumb, ribbed cuff and a pattern."""
    wool, cuff, motif = [
        ("#d93a3a", "#f5f5f0", "#ffffff"),
        ("#2f6fc9", "#eef3fa", "#ffffff"),
        ("#2f9e68", "#f2f7ee", "#fff1c9"),
        ("#c83a6f", "#faf0f4", "#ffffff"),
        ("#d9692f", "#fbf3e8", "#fff7df"),
        ("#7a52b8", "#f3eefb", "#ffffff"),
    ][variant]
    tilt = (-8, 6, -4, 10, -12, 3)[variant]
    ribs = "".join(f'<path d="M{x} 76 V95" stroke="#b9bfc5" stroke-width="2"/>' for x in range(34, 76, 7))
    return _svg(
        f'<path d="M28 76 V34 Q28 5 52 5 Q76 5 76 34 V76 Z" fill="{wool}"/>'
        f'<path d="M30 68 Q10 56 6 42 Q4 32 12 31 Q18 31 30 46 Z" fill="{wool}"/>'
        f'<rect x="25" y="74" width="54" height="22" rx="5" fill="{cuff}" stroke="#b9bfc5" stroke-width="2"/>{ribs}'
        f'<path d="M52 24 L62 40 L52 56 L42 40 Z" fill="none" stroke="{motif}" stroke-width="4"/>'
        f'<path d="M30 64 H75" stroke="{motif}" stroke-width="3" stroke-dasharray="4 4"/>',
        tilt,
    )


def broom(variant: int) -> str:
    """A straw broom leaning to the right."""
    straw, band, stick = [
        ("#f2c14e", "#c0392b", "#8a5a2b"),
        ("#e8b23c", "#2f6fc9", "#7a4a22"),
        ("#f5cd6a", "#2f9e68", "#94612f"),
        ("#eebb48", "#c0392b", "#6f4520"),
        ("#f0c55c", "#6a4bc0", "#8a5a2b"),
        ("#e5ac35", "#b03030", "#80502a"),
    ][variant]
    tilt = (42, 38, 46, 40, 44, 36)[variant]
    lines = "".join(f'<path d="M{44 + 3 * k} 66 L{36 + 7 * k} 100" stroke="{stick}" stroke-width="1.4"/>' for k in range(5))
    return _svg(
        f'<rect x="46.5" y="-8" width="7" height="64" rx="3" fill="{stick}"/>'
        f'<path d="M40 56 H60 L74 102 H26 Z" fill="{straw}"/>{lines}<rect x="39" y="56" width="22" height="8" rx="2" fill="{band}"/>',
        tilt,
    )


def daisy(variant: int) -> str:
    """A white daisy with a yellow heart on a green stem."""
    heart, green, edge = [
        ("#f5b921", "#3f9a46", "#c9d3dc"),
        ("#f2a51f", "#4caf50", "#c2ccd8"),
        ("#ffc83d", "#2f8f4a", "#cfd8df"),
        ("#f0b429", "#55a84b", "#c4cfda"),
        ("#f7a928", "#3a9a58", "#ccd6de"),
        ("#fbbf24", "#4a9f3c", "#c0cad6"),
    ][variant]
    petals = (12, 11, 13, 12, 10, 14)[variant]
    parts = [
        f'<path d="M50 40 Q52 70 49 99" stroke="{green}" stroke-width="5" fill="none"/>',
        f'<path d="M50 84 Q66 66 80 74 Q70 90 50 92 Z" fill="{green}"/>',
    ]
    for k in range(petals):
        angle = 2 * pi * k / petals + 0.2 * variant
        x, y = 50 + 20 * cos(angle), 38 + 20 * sin(angle)
        parts.append(
            f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="15" ry="6" fill="#fbfdff" stroke="{edge}" stroke-width="1.6" '
            f'transform="rotate({angle * 180 / pi:.1f} {x:.1f} {y:.1f})"/>'
        )
    parts.append(f'<circle cx="50" cy="38" r="11" fill="{heart}"/>')
    return _svg("".join(parts))


def parachute(variant: int) -> str:
    """A round parachute with gores, lines and a small parachutist."""
    first, second = [
        ("#e23b3b", "#fff4f0"),
        ("#2f7de1", "#f7c948"),
        ("#f08a24", "#fff1d6"),
        ("#8e44ad", "#f4d03f"),
        ("#27ae60", "#f9f3e3"),
        ("#d8315b", "#9ad1f5"),
    ][variant]
    wide = (0, 2, -2, 1, -1, 3)[variant]
    left, right = 6 - wide, 94 + wide
    return _svg(
        f'<path d="M{left} 46 L50 82 L{right} 46 M35 46 L50 82 L65 46" stroke="#5b6670" stroke-width="1.8" fill="none"/>'
        f'<path d="M{left} 46 Q{left} 6 50 5 Q{right} 6 {right} 46 Z" fill="{first}"/>'
        f'<path d="M21 46 Q24 14 50 5 Q30 18 35 46 Z" fill="{second}"/><path d="M79 46 Q76 14 50 5 Q70 18 65 46 Z" fill="{second}"/>'
        '<circle cx="50" cy="80" r="4" fill="#e8b98a"/><path d="M44 84 H56 L54 97 H46 Z" fill="#39424c"/>'
    )


OWN: dict[str, Callable[[int], str]] = {
    "iron": iron,
    "anemone fish": clownfish,
    "espresso maker": moka_pot,
    "golf ball": golf_ball,
    "missile": missile,
    "pool table": pool_table,
    "mailbag": mailbag,
    "convertible": convertible,
    "folding chair": folding_chair,
    "pajama": pajama,
    "mitten": mitten,
    "broom": broom,
    "daisy": daisy,
    "parachute": parachute,
}
