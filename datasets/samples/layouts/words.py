"""Running text: passages of five books in the public domain, and STORIES, which were written for this dataset.

The passages are shortened where a page is full, and their dashes are set as commas: the font has no dash.
"""

from __future__ import annotations

ALICE = (  # Lewis Carroll, Alice's Adventures in Wonderland, 1865
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: "
    "once or twice she had peeped into the book her sister was reading, but it had no pictures or conversations "
    "in it, “and what is the use of a book,” thought Alice, “without pictures or conversations?”\n"
    "So she was considering in her own mind (as well as she could, for the hot day made her feel very sleepy and "
    "stupid), whether the pleasure of making a daisy-chain would be worth the trouble of getting up and picking "
    "the daisies, when suddenly a White Rabbit with pink eyes ran close by her."
)
PRIDE = (  # Jane Austen, Pride and Prejudice, 1813
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want "
    "of a wife.\n"
    "However little known the feelings or views of such a man may be on his first entering a neighbourhood, this "
    "truth is so well fixed in the minds of the surrounding families, that he is considered as the rightful "
    "property of some one or other of their daughters."
)
MOBY = (  # Herman Melville, Moby-Dick, 1851
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and "
    "nothing particular to interest me on shore, I thought I would sail about a little and see the watery part of"
    " the world. It is a way I have of driving off the spleen and regulating the circulation. Whenever I find "
    "myself growing grim about the mouth; whenever it is a damp, drizzly November in my soul; whenever I find "
    "myself involuntarily pausing before coffin warehouses, and bringing up the rear of every funeral I meet; "
    "then, I account it high time to get to sea as soon as I can."
)
CITIES = (  # Charles Dickens, A Tale of Two Cities, 1859
    "t was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness,"
    " it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season "
    "of Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had "
    "nothing before us."
)
WALDEN = (  # Henry David Thoreau, Walden, 1854
    "I went to the woods because I wished to live deliberately, to front only the essential facts of life, and "
    "see if I could not learn what it had to teach, and not, when I came to die, discover that I had not lived."
)

STORIES = {
    "bridge": (
        "After eleven months of work the old stone bridge opened again on Monday morning. The first to cross was "
        "a baker on a bicycle, who said he had waited long enough. Engineers replaced forty of the arch stones "
        "and cleaned the rest by hand. A new path now runs under the northern arch, so walkers no longer have to "
        "cross the busy road. The mayor thanked the masons and promised that the lamps would be lit by the end of"
        " the week. Traffic was light and only one goose refused to leave."
    ),
    "harvest": (
        "Growers in the valley report the best apple harvest in nine years. A mild spring and a wet June gave "
        "large, firm fruit, and the packing sheds have added a night shift. Prices at the market fell to 1.20 a "
        "kilo on Saturday. “We have run out of crates twice,” said one farmer, who has begun to press the rest "
        "into cider. The fair will be held on the 14th as planned, with music from four until dark."
    ),
    "library": (
        "The public library will stay open until nine on weekdays from next month. Staff asked 640 readers what "
        "they wanted most, and longer hours came first, ahead of warmer rooms and better coffee. Two reading "
        "rooms on the second floor will be quiet at all times. Loans rose by 7 per cent last year; the most "
        "borrowed book was a guide to repairing bicycles."
    ),
    "ferry": (
        "The morning ferry ran late for a third day because of fog in the sound. Passengers were offered hot soup"
        " and a seat indoors. The company says that a new radar, ordered in March, will arrive before the winter."
        " Until then the 7.15 and the 8.40 may leave up to half an hour late. Freight is not affected."
    ),
    "telescope": (
        "A telescope built by pupils of the hill school has seen its first light. The mirror, ground over two "
        "winters, is 30 centimetres wide. On the first clear night the club counted four moons of Jupiter and "
        "argued about a fifth dot, which proved to be a speck of dust. Visitors are welcome every Friday after "
        "dusk."
    ),
    "seeds": (
        "Seeds kept in a sealed jar for sixty years have sprouted in a garden laboratory. Twelve of fifty grew "
        "within a week. The finding suggests that simple storage at low humidity works far longer than was "
        "thought. The team now plans to open one jar in every decade and to publish the counts."
    ),
}
