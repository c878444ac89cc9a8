"""What is written on the images: words, numbers and sentences, all of them written for this dataset."""

from __future__ import annotations

_PLAIN = """
about above acorn after agent album alley amber anchor angle apple apron arrow attic autumn award bakery balance
ballot bamboo banner barrel basket beacon before bench berry better bicycle bird blanket border bottle branch bread
bridge bright broken brown bucket budget butter button cabin candle canvas carpet carrot castle cedar central chair
change charge cherry circle citrus clear clever clock cloud coast coffee copper corner cotton cradle cream crystal
daily danger dark daughter decade deliver desert detail diamond dinner direct dollar double dragon drawer dream driver
during early earth eight eleven engine enough entrance equal evening exit fabric factory family farmer fast father
feather fence ferry field final finger fire fish flag floor flower follow forest formal fresh friday friend frozen
fruit funnel future garage garden gate general gentle ginger glass gold grand grape gravel green guide guitar hammer
handle harbour hardware harvest heavy height hidden high honey horse hotel hours house human hunter iron island jacket
january join journey juice jungle kettle keyboard kitchen knife ladder lamp language large laundry leather lemon
letter library light limit lion liquid little lobster luggage magnet maple marble margin market master meadow meeting
melon member metal midnight minute mirror modern monday morning mother motor mountain museum music napkin narrow
nature needle night north notice number ocean offer office olive open orange orchard order oxygen paint palace panel
paper parade parcel parking pebble pencil people pepper phone picture pilot planet plastic platform please pocket
polite potato powder premium pretty printer private public pumpkin quality quarter quick quiet rabbit radio railway
rain ready record repair report ribbon river rocket round rubber saddle safety salmon salt sample saturday school
science second secret select senior seven shadow sharp shelter shoulder signal silver simple sister sketch smooth soap
socket south special spring square stable station steel storm street strong student sugar summer sunday supper sweet
table tailor target teacher temple thank theatre thirty thunder ticket tiger timber tomato tower traffic train travel
triangle tunnel turtle twenty umbrella under unit upper urban valley vanilla velvet village violet visitor voltage
waiter walnut warm water weather welcome west wheat whisper white wicker willow window winter wonder wooden yellow
young zebra
"""
_MARKED = """
don't it's can't we'll o'clock Open: Sale! Why? Stop! Exit> No.7 No.42 St. Ave. Ltd. Inc. Dr. etc. e.g. half-day
part-time self-made e-mail web-site top-10 24/7 50/50 and/or km/h 100% 25% 7.5% -40% $9.99 $120 $3.50 (new) (left)
"fresh" B&B R&D #12 #305 A-3 B-17 C4/D2 7:30 12:45 18:05 9am 5pm 3rd 21st 1,250 12,800 3.14 0.75 2+2 user@home item_4
"""
_NUMBERS = """
12 27 38 45 64 79 83 96 127 248 365 459 583 672 734 896 1024 1789 1945 2026 3570 4482 5926 7413 8365 26537
"""
WORDS = (*_PLAIN.split(), *_MARKED.split(), *_NUMBERS.split())

SENTENCES = (
    "The ferry to the northern island leaves at 7:45 and again at noon.",
    "Please keep this ticket; you will need it on the way back.",
    "Twelve apples, three lemons and half a kilo of butter: $18.60 in all.",
    "Nobody had opened the attic window since the winter of 1987.",
    "Turn left after the bakery, then follow the wooden fence downhill.",
    "Her report lists 246 bridges, of which 31 need urgent repair.",
    "Fresh bread daily! Ask for our dark rye with walnuts.",
    "Members' meeting: Thursday, 14 May, in the Old Library.",
    "We regret that platform 9 is closed until further notice.",
    "A good map tells you where you are; a better one, where to go.",
    "Store below 25 degrees and keep away from children.",
    "The museum's garden opens early (at 8:30) from April to October.",
    "What began as a hobby turned into a factory with 340 workers.",
    "Don't forget: bring gloves, boots and a bottle of water.",
    "Invoice No. 58213 is due within thirty days of delivery.",
    "Silver clouds drifted over the harbour while the band played.",
    "Can it be that the tower leans another inch every decade?",
    "Room 417 faces the valley, room 418 the railway bridge.",
    "Rain, wind and thunder; then, quite suddenly, a bright evening.",
    "Mix the flour and the sugar, add two eggs, stir gently.",
    "All prices include 20% tax. Delivery within the city is free.",
    "Quick thinking by the night guard prevented a larger fire.",
    "Our school choir will sing at the Grand Hotel on Friday.",
    "Between 1890 and 1925 the village grew from 60 to 2,400 people.",
)


def telling(text: str) -> bool:
    """Whether a reader can tell every letter's case: lone letters, and words like "cow", look alike in both cases."""
    letters = [character for character in text if character.isalpha()]
    return len(text) > 1 and (not letters or any(letter.lower() not in "cosvwxz" for letter in letters))
