"""Laboratory procedures and their actions, from one grammar: a sentence and its actions share slots.

The action strings follow Vaucher et al., "Automated extraction of chemical synthesis actions from experimental
procedures" (Nature Communications 2020): `ADD water (10 mL); STIR for 2 hours at 60 °C.`
"""

from collections.abc import Callable
from random import Random

LONGEST = 400

SENTENCES: tuple[tuple[tuple[str, str], ...], ...] = (
    # Phases of a procedure in order, each with alternative wordings. A slot is a kind and a digit.
    (
        (
            "To a solution of {compound1} ({amount1}) in {solvent1} ({volume1}) was added {reagent1} ({amount2}).",
            "MAKESOLUTION with {compound1} ({amount1}) and {solvent1} ({volume1}); ADD SLN; ADD {reagent1} ({amount2})",
        ),
        (
            "To a stirred solution of {compound1} ({amount1}) in {solvent1} ({volume1}) was added "
            "{liquid1} ({volume2}) dropwise at {cold1}.",
            "MAKESOLUTION with {compound1} ({amount1}) and {solvent1} ({volume1}); ADD SLN; "
            "ADD {liquid1} ({volume2}) dropwise at {cold1}",
        ),
        (
            "A solution of {compound1} ({amount1}) in {solvent1} ({volume1}) was cooled to {cold1}.",
            "MAKESOLUTION with {compound1} ({amount1}) and {solvent1} ({volume1}); ADD SLN; SETTEMPERATURE {cold1}",
        ),
        (
            "A mixture of {compound1} ({amount1}) and {reagent1} ({amount2}) in {solvent1} ({volume1}) was "
            "degassed with {gas1}.",
            "ADD {compound1} ({amount1}); ADD {reagent1} ({amount2}); ADD {solvent1} ({volume1}); DEGAS with {gas1}",
        ),
        (
            "{compound1} ({amount1}) was dissolved in {solvent1} ({volume1}) under {gas1}.",
            "ADD {compound1} ({amount1}); ADD {solvent1} ({volume1}) under {gas1}",
        ),
        (
            "{compound1} ({amount1}) was suspended in {solvent1} ({volume1}) and sonicated for {minutes1}.",
            "ADD {compound1} ({amount1}); ADD {solvent1} ({volume1}); SONICATE for {minutes1}",
        ),
    ),
    (
        ("Then {reagent1} ({amount1}) was added in portions at {cold1}.", "ADD {reagent1} ({amount1}) at {cold1}"),
        (
            "A solution of {compound1} ({amount1}) in {solvent1} ({volume1}) was added dropwise over {minutes1}.",
            "MAKESOLUTION with {compound1} ({amount1}) and {solvent1} ({volume1}); ADD SLN dropwise over {minutes1}",
        ),
        ("{Liquid1} ({volume1}) was added slowly.", "ADD {liquid1} ({volume1})"),
        (
            "{Liquid1} ({volume1}) and {compound1} ({amount1}) were added.",
            "ADD {liquid1} ({volume1}); ADD {compound1} ({amount1})",
        ),
    ),
    (
        ("The mixture was stirred at {heat1} for {hours1}.", "STIR for {hours1} at {heat1}"),
        ("The reaction mixture was stirred for {hours1} at room temperature.", "STIR for {hours1} at room temperature"),
        ("The mixture was stirred overnight at {heat1}.", "STIR for overnight at {heat1}"),
        (
            "After stirring at {cold1} for {minutes1}, {liquid1} ({volume1}) was added.",
            "STIR for {minutes1} at {cold1}; ADD {liquid1} ({volume1})",
        ),
        ("The solution was heated under reflux for {hours1}.", "REFLUX for {hours1}"),
        ("The mixture was heated to {heat1} and kept there for {hours1}.", "SETTEMPERATURE {heat1}; WAIT for {hours1}"),
        ("The vial was heated in a microwave at {heat1} for {minutes1}.", "MICROWAVE for {minutes1} at {heat1}"),
        (
            "The mixture was allowed to warm to room temperature and stirred for {hours1}.",
            "SETTEMPERATURE room temperature; STIR for {hours1} at room temperature",
        ),
    ),
    (
        ("The reaction was quenched with {aqueous1} ({volume1}).", "QUENCH with {aqueous1} ({volume1})"),
        (
            "After cooling to room temperature, {aqueous1} ({volume1}) was added.",
            "SETTEMPERATURE room temperature; ADD {aqueous1} ({volume1})",
        ),
        ("The pH was adjusted to {ph1} with {acid1}.", "PH with {acid1} to pH {ph1}"),
        (
            "The mixture was concentrated and diluted with {solvent1} ({volume1}).",
            "CONCENTRATE; ADD {solvent1} ({volume1})",
        ),
    ),
    (
        (
            "The mixture was extracted with {organic1} ({times1} × {volume1}) and the organic layers were combined.",
            "EXTRACT with {organic1} ({volume1}) {times1} x; COLLECTLAYER organic",
        ),
        (
            "The organic phase was separated and washed with {aqueous1} ({volume1}) and brine.",
            "COLLECTLAYER organic; WASH with {aqueous1} ({volume1}); WASH with brine",
        ),
        (
            "The residue was partitioned between {organic1} ({volume1}) and {aqueous1} ({volume2}).",
            "PARTITION with {organic1} ({volume1}) and {aqueous1} ({volume2})",
        ),
        (
            "The layers were separated and the aqueous layer was extracted with {organic1} ({times1} × {volume1}).",
            "PHASESEPARATION; COLLECTLAYER aqueous; EXTRACT with {organic1} ({volume1}) {times1} x",
        ),
        (
            "The precipitate was collected by filtration, washed with {solvent1} ({volume1}) and dried in vacuo.",
            "FILTER keep precipitate; WASH with {solvent1} ({volume1}); DRYSOLID under vacuum",
        ),
    ),
    (
        (
            "The organic layer was dried over {desiccant1}, filtered and concentrated.",
            "DRYSOLUTION over {desiccant1}; FILTER keep filtrate; CONCENTRATE",
        ),
        ("The solution was dried ({desiccant1}) and evaporated.", "DRYSOLUTION over {desiccant1}; CONCENTRATE"),
        ("The mixture was filtered and the filtrate was concentrated.", "FILTER keep filtrate; CONCENTRATE"),
        ("The solvent was removed under reduced pressure.", "CONCENTRATE"),
    ),
    (
        (
            "Purification by column chromatography gave {compound1} ({amount1}, {percent1}) as a {solid1}.",
            "PURIFY; YIELD {compound1} ({amount1}, {percent1})",
        ),
        (
            "The residue was recrystallized from {solvent1} to give {compound1} ({amount1}).",
            "RECRYSTALLIZE from {solvent1}; YIELD {compound1} ({amount1})",
        ),
        (
            "The crude product was triturated with {solvent1} ({volume1}) to give the title compound ({percent1}).",
            "TRITURATE with {solvent1} ({volume1}); YIELD title compound ({percent1})",
        ),
        ("The crude product was purified by HPLC.", "PURIFY"),
        ("The title compound ({amount1}) was obtained as a {solid1}.", "YIELD title compound ({amount1})"),
    ),
)

_WORDS: dict[str, tuple[str, ...]] = {
    "solvent": ("THF", "DMF", "dichloromethane", "ethanol", "methanol", "toluene", "acetonitrile", "dioxane", "DMSO"),
    "organic": ("ethyl acetate", "dichloromethane", "diethyl ether", "chloroform"),
    "aqueous": ("water", "saturated NaHCO3 solution", "saturated NH4Cl solution", "1 N HCl", "brine"),
    "acid": ("1 N HCl", "2 N HCl", "acetic acid", "1 N NaOH", "2 N NaOH", "saturated NaHCO3 solution"),
    "reagent": (
        *("potassium carbonate", "cesium carbonate", "sodium hydride", "sodium borohydride", "EDC", "HATU", "DMAP"),
        *("sodium hydroxide", "lithium hydroxide", "iron powder", "palladium acetate", "N-bromosuccinimide"),
    ),
    "liquid": (
        "triethylamine",
        "acetic acid",
        "thionyl chloride",
        "pyridine",
        "benzyl bromide",
        "iodomethane",
        "morpholine",
    ),
    "desiccant": ("Na2SO4", "MgSO4", "sodium sulfate", "magnesium sulfate"),
    "gas": ("nitrogen", "argon"),
    "solid": ("white solid", "yellow solid", "colorless oil", "brown solid"),
    "cold": ("0 °C", "-20 °C", "-78 °C", "5 °C"),
    "heat": ("40 °C", "50 °C", "60 °C", "80 °C", "90 °C", "100 °C", "120 °C"),
    "minutes": ("5 minutes", "10 minutes", "15 minutes", "20 minutes", "30 minutes", "45 minutes"),
    "hours": ("1 hour", "2 hours", "3 hours", "4 hours", "6 hours", "12 hours", "16 hours", "24 hours"),
    "volume": tuple(f"{n} mL" for n in (2, 3, 5, 8, 10, 15, 20, 25, 30, 40, 50, 80, 100)),
    "times": ("2", "3"),
    "ph": tuple(str(n) for n in range(2, 11)),
}
_PARENTS = (
    *(
        "{}benzaldehyde",
        "{}benzoic acid",
        "{}aniline",
        "{}phenol",
        "{}benzonitrile",
        "{}benzamide",
        "methyl {}benzoate",
    ),
    *("({}phenyl)boronic acid", "N-({}phenyl)acetamide", "1-({}phenyl)ethanone", "1-({}phenyl)piperazine"),
)
_PREFIXES = ("fluoro", "chloro", "bromo", "iodo", "methyl", "ethyl", "methoxy", "nitro", "hydroxy", "amino")


def procedure(rng: Random) -> tuple[str, str]:
    """A paragraph of one to five sentences, and its actions: at most LONGEST characters each."""
    count = rng.choices((1, 2, 3, 4, 5), weights=(22, 45, 20, 8, 5))[0]
    text, actions = "", ""
    for phase in sorted(rng.sample(range(len(SENTENCES)), count)):
        sentence, action = rng.choice(SENTENCES[phase])
        slots = _Slots(rng)
        longer = f"{text} {sentence.format_map(slots)}".lstrip()
        more = f"{actions}; {action.format_map(slots)}".removeprefix("; ")
        if max(len(longer), len(more) + 1) > LONGEST:
            break
        text, actions = longer, more
    return text, f"{actions}."


class _Slots(dict[str, str]):
    """Draws a slot at its first use, in the sentence, and repeats it in the actions. A capitalised slot gives a
    capitalised text."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self.rng = rng

    def __missing__(self, slot: str) -> str:
        if slot[0].isupper():
            text = self[slot.lower()]
            return text[0].upper() + text[1:]
        kind = slot[:-1]
        self[slot] = self.rng.choice(_WORDS[kind]) if kind in _WORDS else _DRAWN[kind](self.rng)
        return self[slot]


def _compound(rng: Random) -> str:
    """The name of a substituted benzene, substituents in alphabetical order."""
    prefixes = sorted(rng.sample(_PREFIXES, rng.choice((1, 2))))
    places = rng.sample((2, 3, 4, 5)[: 2 + len(prefixes)], len(prefixes))
    return rng.choice(_PARENTS).format(
        "-".join(f"{place}-{name}" for place, name in zip(places, prefixes, strict=True))
    )


def _amount(rng: Random) -> str:
    """A mass and the same in mmol, for 90 to 350 g/mol."""
    mmol = rng.choice((0.2, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0, 10.0, 20.0))
    mg = mmol * rng.randint(90, 350)
    mass = f"{mg:.0f} mg" if mg < 1000 else f"{mg / 1000:.1f} g"
    return f"{mass}, {mmol:g} mmol"


def _percent(rng: Random) -> str:
    return f"{rng.randint(30, 98)}%"


_DRAWN: dict[str, Callable[[Random], str]] = {"compound": _compound, "amount": _amount, "percent": _percent}
