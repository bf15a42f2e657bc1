"""The words and phrases of the review corpus; make_corpus.py holds the grammar that joins them.

Everything here was written for this project. Notation in the phrases:

    drag[s]        -> "drags" after a singular subject, "drag" after a plural one
    [is|are]       -> the first form after a singular subject, the second after a plural one
    {place}        -> filled in by the grammar; the same all through a review

Grades run from -2 (very negative) over 0 (says nothing either way) to 2 (very positive).
"""

# --- Names ----------------------------------------------------------------------------------------------------------

FILM_ADJECTIVES = """Amber Borrowed Copper Crooked Distant Glass Hollow Marble Ninth Paper Patient Quiet Salt Scarlet
Second Silver Tin Unwritten Velvet Winter""".split()
FILM_NOUNS = """Almanac Bridge Clockmaker Compass Ferry Garden Harbour Lantern Letter Meridian Orchard Parade Piano
Season Staircase Summit Tenant Verdict Waltz Window""".split()
FILM_PLURALS = "Bells Brothers Doors Keys Lanterns Mirrors Rivers Sparrows Strangers Suitcases".split()
FILM_NUMBERS = "Three Five Seven Nine Eleven".split()

PLACES = """Bergen Bristol Dakar Genoa Ghent Glasgow Kyoto Lisbon Lima Montreal Naples Oslo Porto Prague Tangier
Trieste""".split()
WOMEN = "Adele Beatriz Clara Elif Hanna Ines Leonie Mirela Noor Olga Ruth Yuki".split()
MEN = "Anton Bruno Dario Emil Felix Hugo Ivo Kofi Mateo Oskar Rafael Tomas".split()
SURNAMES = """Abiola Brandt Castellan Darrow Falk Halloran Ilunga Kestrel Lindqvist Marchetti Okorie Quill Rusk Sorel
Tanaka Varga""".split()

# --- Facts ----------------------------------------------------------------------------------------------------------

# genre and its plural
GENRES = [
    ("thriller", "thrillers"), ("comedy", "comedies"), ("drama", "dramas"), ("western", "westerns"),
    ("musical", "musicals"), ("love story", "love stories"), ("ghost story", "ghost stories"),
    ("war film", "war films"), ("crime film", "crime films"), ("heist film", "heist films"),
    ("mystery", "mysteries"), ("fantasy", "fantasies"),
]
GENRE_ADJECTIVES = ["Danish", "French", "Irish", "Japanese", "Italian", "Polish", "small", "long", "quiet", "modern",
                    "black and white", "political", "historical"]
ROLES = [
    "baker", "detective", "farmer", "fisherman", "journalist", "judge", "lawyer", "librarian", "lighthouse keeper",
    "nurse", "painter", "piano teacher", "pilot", "sailor", "schoolteacher", "soldier", "surgeon", "tailor",
    "taxi driver", "thief", "violinist", "widow",
]
ROLE_ADJECTIVES = ["retired", "young", "lonely", "stubborn", "famous", "former", "shy", "restless"]
EVENTS = [
    "inherits a hotel", "returns home after ten years", "searches for a missing brother", "loses a letter",
    "crosses the mountains in winter", "tries to save a small theatre", "finds a suitcase full of money",
    "falls in love with a neighbour", "has to share a house with a rival", "hides a secret from the whole village",
    "takes the night train north", "learns to live with a stranger", "is asked to solve one last case",
    "buys a boat and leaves the city", "hears a voice on the radio", "forgets one day of the past",
    "writes to a father who never answers", "agrees to a bet",
]
SCENE_EVENTS = [
    "misses the last ferry", "opens the letter", "dances alone in the kitchen", "meets an old friend at the station",
    "burns the map", "hears the truth at dinner", "walks out of the wedding", "waits in the rain",
    "plays the piano for an empty room", "sells the family car", "breaks a window", "finds the key",
]
LENGTHS = ["ninety minutes", "two hours", "just over two hours", "almost three hours", "a hundred minutes",
           "eighty minutes"]
DECADES = ["the twenties", "the thirties", "the fifties", "the sixties", "the seventies", "the nineties",
           "the last days of the war", "the near future", "the present day"]
ORDINALS = ["first", "second", "third", "fourth", "fifth"]
COMPANY = ["my brother", "my sister", "my parents", "two friends", "my neighbour", "my daughter", "an old friend",
           "a full house", "three colleagues"]
OCCASIONS = ["on a Sunday afternoon", "on a rainy Tuesday", "late on a Friday night", "on a long flight",
             "on the train to {place}", "at a festival in {place}", "at a small cinema in {place}", "at home",
             "on the last day of its run", "during the holidays", "at a morning show"]
NEUTRAL_SENTENCES = [
    "it runs for {length} and is set in {place}.", "the story is set in {place} in {decade}.",
    "most of it was shot in {place}.", "it is the {ordinal} part of a series.", "{person2} wrote the script.",
    "the film is based on a novel by {person2}.", "{person2} has a small role as {other_role}.",
    "half of it is spoken in French.", "the running time is {length}.", "there are only four speaking parts.",
    "the story covers one summer.", "it opens in {place} and ends at sea.", "the music is by {person2}.",
    "it was filmed in a single house.", "the second half takes place in {place}.",
    "a {genre} like this is rarely shown in the big cinemas.", "it was made by a crew from {place}.",
]

# --- Aspects: what a review talks about, with what can be said of it ------------------------------------------------

# name: (singular noun phrases, plural noun phrases, {grade: predicates}); a noun phrase starts with "the".
ASPECTS = {
    "acting": (
        ["the acting", "the cast", "the lead performance", "the work of the lead actor"],
        ["the performances", "the actors", "the two leads", "the supporting actors"],
        {
            2: ["[is|are] a joy to watch", "[carries|carry] the whole film", "deserve[s] every prize there is",
                "turn[s] every scene into something alive", "[is|are] the best I have seen all year"],
            1: ["[is|are] warm and natural", "hold[s] your attention", "find[s] the right tone", "feel[s] honest",
                "[keeps|keep] things believable", "[makes|make] small moments count"],
            -1: ["[is|are] stiff and nervous", "never quite convince[s]", "feel[s] half asleep",
                 "seem[s] to belong to another film", "[leaves|leave] you cold", "[is|are] rather wooden"],
            -2: ["[is|are] painful to watch", "ruin[s] every scene", "would shame a school play",
                 "[is|are] the worst I have seen in years"],
        },
    ),
    "plot": (
        ["the plot", "the story", "the script"],
        ["the twists", "the story lines"],
        {
            2: ["grip[s] you from the first minute", "[is|are] a small miracle of invention",
                "surprise[s] you again and again", "fit[s] together like a fine watch"],
            1: ["hold[s] together well", "[keeps|keep] you guessing", "[moves|move] along nicely",
                "[has|have] a few good surprises", "reward[s] a patient viewer", "[makes|make] good sense"],
            -1: ["drag[s]", "lead[s] nowhere", "[is|are] easy to guess", "feel[s] borrowed from better films",
                 "run[s] out of ideas", "[makes|make] little sense"],
            -2: ["fall[s] apart completely", "[is|are] an insult to the audience", "[makes|make] no sense at all",
                 "[is|are] a complete mess"],
        },
    ),
    "dialogue": (
        ["the dialogue", "the writing", "the narration"],
        ["the conversations", "the lines"],
        {
            2: ["sparkle[s] from start to finish", "[is|are] a delight", "deserve[s] to be quoted for years"],
            1: ["[is|are] sharp and funny", "sound[s] like real life", "[has|have] a nice rhythm",
                "[is|are] full of small surprises", "[trusts|trust] the audience"],
            -1: ["sound[s] like a lecture", "explain[s] too much", "[is|are] flat and lifeless",
                 "[repeats|repeat] what we can see",
                 "could have used another draft"],
            -2: ["[is|are] simply unbearable", "hurt[s] the ears", "[is|are] so bad that people laughed"],
        },
    ),
    "music": (
        ["the soundtrack", "the score", "the music"],
        ["the songs"],
        {
            2: ["[is|are] gorgeous", "give[s] the film its soul", "stay[s] with you for days"],
            1: ["[suits|suit] the mood", "lift[s] the quiet scenes", "[is|are] gentle and well chosen",
                "add[s] a lot of warmth"],
            -1: ["never stop[s] telling us what to feel", "[is|are] too loud", "get[s] in the way",
                 "[is|are] soon forgotten"],
            -2: ["drown[s] everything in syrup", "[is|are] a torment", "nearly drove me out of the room"],
        },
    ),
    "camera": (
        ["the camera work", "the photography", "the lighting"],
        ["the images"],
        {
            2: ["[is|are] breathtaking", "[makes|make] every frame a painting",
                "[is|are] a wonder from beginning to end"],
            1: ["[is|are] calm and elegant", "flatter[s] every face", "show[s] {place} as I have never seen it",
                "[is|are] lovely to look at"],
            -1: ["[is|are] grey and muddy", "[looks|look] cheap", "draw[s] attention for the wrong reasons",
                 "[is|are] restless for no reason"],
            -2: ["gave me a headache", "[is|are] ugly beyond words", "[is|are] a disgrace"],
        },
    ),
    "pacing": (
        ["the pacing", "the editing", "the first hour", "the middle part", "the second half"],
        ["the long takes"],
        {
            2: ["[is|are] just right", "never waste[s] a second", "[is|are] a model of how it should be done"],
            1: ["[keeps|keep] a steady rhythm", "[is|are] brisk and clear", "give[s] the story room to breathe",
                "[is|are] never boring"],
            -1: ["[is|are] slow and heavy", "test[s] your patience", "need[s] a pair of scissors",
                 "[is|are] all over the place"],
            -2: ["[is|are] deadly", "feel[s] like a punishment", "put half the audience to sleep"],
        },
    ),
    "ending": (
        ["the ending", "the last scene", "the final act", "the final twist"],
        [],
        {
            2: ["moved me to tears", "is one of the finest in years", "is unforgettable", "lifts the whole film"],
            1: ["comes at the right moment", "is touching and well earned", "ties things up neatly",
                "left me smiling"],
            -1: ["comes out of nowhere", "is far too neat", "left me cold", "arrives an hour too late",
                 "feels like a trick"],
            -2: ["is an outrage", "spoils everything that came before", "is the silliest I can remember"],
        },
    ),
    "design": (
        ["the costume design", "the production design"],
        ["the sets", "the costumes", "the effects"],
        {
            2: ["[is|are] a feast for the eyes", "[is|are] astonishing"],
            1: ["[is|are] made with care", "help[s] to bring {decade} to life", "[is|are] a pleasure to look at",
                "[is|are] rich in detail"],
            -1: ["[looks|look] like cardboard", "[is|are] strangely bare", "distract[s] from the story"],
            -2: ["[looks|look] dreadful", "would embarrass a student film"],
        },
    ),
    "characters": (
        ["the main character", "the villain", "the family at the centre of it"],
        ["the characters", "the heroes", "the minor characters"],
        {
            2: ["[is|are] impossible to forget", "[is|are] drawn with real love", "[breaks|break] your heart"],
            1: ["[is|are] easy to like", "feel[s] true to life", "grow[s] on you", "[has|have] real depth"],
            -1: ["[is|are] hard to care about", "never come[s] to life", "[is|are] paper thin",
                 "[is|are] more tiresome than interesting"],
            -2: ["[is|are] simply hateful", "[is|are] dull beyond belief",
                 "[is|are] an old cliche and nothing more"],
        },
    ),
    "humour": (
        ["the humour", "the comedy", "the running joke about the goat"],
        ["the jokes", "the funny scenes"],
        {
            2: ["had the whole room in tears of laughter", "[is|are] priceless"],
            1: ["[is|are] dry and clever", "work[s] more often than not", "[is|are] kind rather than cruel",
                "brighten[s] the darker scenes"],
            -1: ["miss[es|] more often than not", "[is|are] tired", "fall[s] flat",
                 "[has|have] grown old by the second scene"],
            -2: ["[is|are] cringeworthy", "[is|are] cruel and stupid", "died in complete silence"],
        },
    ),
    "direction": (
        ["the direction", "the use of silence", "the opening scene", "the chase in the harbour"],
        [],
        {
            2: ["is masterly", "is a lesson in how to make films", "is worth the ticket alone"],
            1: ["shows a steady hand", "builds tension slowly and well", "is confident and clear",
                "has a quiet charm"],
            -1: ["is heavy handed", "lacks any spark", "is confused", "tries too hard"],
            -2: ["is hopeless", "is amateur work of the worst kind", "is a waste of good film"],
        },
    ),
}

# --- Adjectives that fit every aspect and the film as a whole -------------------------------------------------------

ADJECTIVES = {
    2: ["superb", "wonderful", "brilliant", "excellent", "magnificent", "outstanding", "marvellous"],
    1: ["good", "charming", "clever", "convincing", "pleasant", "enjoyable", "engaging", "fresh", "lively"],
    -1: ["weak", "dull", "clumsy", "thin", "forgettable", "predictable", "disappointing", "tedious", "bland"],
    -2: ["awful", "dreadful", "terrible", "horrible", "pathetic", "miserable", "atrocious"],
}
# adverb: what it does to the grade of a mild adjective
MILD_ADVERBS = [("really", 1.4), ("very", 1.5), ("quite", 1.0), ("rather", 0.9), ("fairly", 0.8), ("mostly", 0.8),
                ("often", 0.7), ("surprisingly", 1.2), ("remarkably", 1.5)]
STRONG_ADVERBS = [("absolutely", 1.1), ("truly", 1.1), ("simply", 1.0), ("utterly", 1.1), ("consistently", 1.0)]

# Negations and hedges after "is" or "are": (phrase, grade)
NEGATIONS = [
    ("not bad at all", 0.8), ("not bad", 0.6), ("not without charm", 0.6), ("never dull", 0.9),
    ("far from boring", 1.0),
    ("anything but dull", 1.2), ("hard to fault", 1.2), ("better than expected", 0.8), ("not good", -1.0),
    ("not very good", -0.9), ("nothing special", -0.7), ("far from perfect", -0.5),
    ("hardly memorable", -0.8), ("not as clever as intended", -0.8), ("anything but subtle", -0.7),
    ("never really interesting", -1.1), ("no better than average", -0.4), ("not worth the trouble", -1.3),
    ("worse than expected", -1.0), ("neither good nor bad", 0.0), ("acceptable and no more", -0.1),
    ("good enough", 0.4), ("fine as far as it goes", 0.2),
]

# --- Whole sentences about the film: (sentence, grade); the weight is the verdict's in the grammar ------------------

FEELINGS = [
    ("I laughed out loud more than once.", 1.3), ("I was smiling the whole way home.", 1.8),
    ("I cried twice and was not ashamed.", 1.7), ("time flew by.", 1.4),
    ("nobody in the room wanted it to end.", 1.9),
    ("I was never bored.", 0.9), ("the audience applauded.", 1.3), ("even my father stayed awake.", 0.7),
    ("I have thought about it every day since.", 1.7), ("it won me over in the end.", 0.8),
    ("I cared about every one of them.", 1.3), ("I could not look away.", 1.5),
    ("I looked at my watch four times.", -1.2), ("I nearly fell asleep.", -1.4),
    ("half the room had left by the end.", -1.8),
    ("I felt nothing at all.", -1.1), ("it lost me after twenty minutes.", -1.0), ("nobody laughed.", -1.0),
    ("I wanted my money back.", -1.9), ("I stopped caring long before the end.", -1.3),
    ("even my patient mother sighed.", -0.8), ("I could not wait for it to be over.", -1.8),
    ("I have rarely been so bored.", -1.7), ("I kept hoping it would improve, and it did not.", -1.2),
    ("I laughed once, and not where I should have.", -1.1), ("I did not laugh, but I did not mind.", 0.0),
    ("some people clapped and some people left.", 0.0), ("I liked parts of it.", 0.3),
    ("I am still not sure what I think.", 0.0),
]
COMPARISONS = [
    ("it is far better than {other}.", 1.3), ("it is funnier than {other} and twice as wise.", 1.6),
    ("it has all the charm that {other} lacked.", 1.4), ("it is the best {genre} since {other}.", 1.9),
    ("it comes close to {other}, and that is high praise.", 1.6), ("it improves on {other} in every way.", 1.5),
    ("it is a little better than {other}.", 0.5), ("I liked it more than {other}.", 0.8),
    ("it has half the charm of {other}.", -0.9), ("it makes {other} look like a masterpiece.", -1.7),
    ("it is a poor copy of {other}.", -1.5), ("it is not nearly as good as {other}.", -1.0),
    ("{other} did all of this before, and did it better.", -1.2), ("it is even worse than {other}.", -1.8),
    ("I liked it less than {other}.", -0.7), ("it is no worse than {other}, and no better.", 0.0),
    ("it will remind you of {other}.", 0.0),
]
VERDICTS = [
    ("I would see it again tomorrow.", 1.8), ("do not miss it.", 1.7), ("it is a masterpiece.", 2.0),
    ("it is one of the best films of the year.", 1.9), ("I loved it.", 1.8), ("warmly recommended.", 1.4),
    ("see it with someone you love.", 1.4), ("it deserves a large audience.", 1.3), ("a lovely surprise.", 1.3),
    ("it is a good film with a big heart.", 1.2), ("well worth the ticket.", 1.1), ("I am glad that I went.", 1.0),
    ("it is well worth an evening.", 0.9), ("it is not a bad film.", 0.4), ("it is a decent effort.", 0.4),
    ("it is a modest success.", 0.5), ("worth seeing once.", 0.4), ("you could do worse.", 0.2),
    ("it is neither a triumph nor a disaster.", 0.0), ("some will love it and some will hate it.", 0.0),
    ("make of that what you will.", 0.0), ("I can see why people disagree about it.", 0.0),
    ("it is hardly a masterpiece.", -0.5), ("it could have been better.", -0.5), ("once is enough.", -0.5),
    ("I expected more.", -0.8), ("it is a missed chance.", -0.9), ("I cannot recommend it.", -1.2),
    ("wait until it is on television.", -0.7), ("it is not worth the ticket.", -1.2), ("save your money.", -1.5),
    ("a dull evening.", -1.2), ("it is a sad waste of talent.", -1.5), ("I hated it.", -1.9), ("avoid it.", -1.8),
    ("it is one of the worst films of the year.", -2.0), ("I want those hours back.", -1.7),
    ("it is a disaster.", -1.9),
]

# Clauses that finish an opening such as "I watched it with my sister on a rainy Tuesday, and ..."
REACTIONS = [
    ("we both loved it", 1.8), ("it was the best evening in months", 1.9), ("we talked about it all night", 1.3),
    ("it made my week", 1.7), ("I enjoyed nearly all of it", 1.1), ("it was better than I had hoped", 1.0),
    ("it was a pleasant surprise", 1.1), ("it held my attention", 0.7), ("I did not regret it", 0.6),
    ("it was neither better nor worse than I expected", 0.0), ("we could not agree about it", 0.0),
    ("I liked the first half and not the second", -0.1), ("it passed the time", 0.1),
    ("I had forgotten it by the morning", -0.9), ("it was a let-down", -1.0),
    ("it was duller than I had feared", -1.2),
    ("I regretted it after ten minutes", -1.5), ("we left before the end", -1.7), ("it spoiled the evening", -1.6),
    ("it was a complete waste of time", -1.9), ("I struggled to stay awake", -1.3), ("it did nothing for me", -0.9),
]
# "{person} plays a nurse who ..., and the result ..."
RESULTS = [
    ("is a triumph", 1.9), ("is pure joy", 1.8), ("is funny and moving at once", 1.5), ("is a delight", 1.5),
    ("is well worth seeing", 1.1), ("works better than it should", 0.8), ("is quietly impressive", 1.1),
    ("has more heart than most", 1.0), ("is perfectly decent", 0.4), ("is a mixed bag", 0.0),
    ("is interesting more than enjoyable", -0.1), ("is hard to put into words", 0.0), ("never quite works", -0.7),
    ("is a bit of a bore", -1.0), ("is as thin as it sounds", -0.9), ("goes nowhere", -1.1), ("is a mess", -1.5),
    ("is a torture to sit through", -1.9), ("is a failure on every level", -1.9), ("is embarrassing", -1.6),
]

# Ends of other openings; the opening that uses them stands above each list.
# "By the time the nurse misses the last ferry, ..."
MOMENTS = [
    ("I could not look away", 1.5), ("the whole film comes alive", 1.3), ("I was in tears", 1.5),
    ("I was won over", 1.2),
    ("I was holding my breath", 1.4), ("you are glad to be there", 1.0), ("you begin to care", 0.8),
    ("you may have mixed feelings", 0.0), ("the mood has changed", 0.0), ("not much has happened", -0.4),
    ("I had lost interest", -1.2), ("I had stopped caring", -1.3), ("everything falls apart", -1.5),
    ("you wish it were over", -1.6), ("I was looking for the exit", -1.7), ("you have guessed the rest", -0.8),
]
# "The first thing you notice about The Copper Ferry is ..."
NOTICES = [
    ("how beautiful it is", 1.6), ("how alive it feels", 1.4), ("the warmth of it", 1.2), ("how funny it is", 1.4),
    ("how much care went into it", 1.2), ("the skill of its makers", 1.2), ("how little it needs to say", 0.5),
    ("the silence", 0.0), ("the colour of the sea", 0.1), ("how young everyone is", 0.0), ("how loud it is", -0.6),
    ("how long it is", -0.8), ("how cheap it looks", -1.3), ("how little happens", -1.0), ("the lack of ideas", -1.3),
    ("how ugly it is", -1.6), ("how badly everyone speaks", -1.5), ("how bored everyone looks", -1.2),
]
# "If you like French thrillers, this one ..."
TASTES = [
    ("was made for you", 1.5), ("will not disappoint you", 1.1), ("will make your evening", 1.5), ("is a must", 1.7),
    ("will keep you happy", 1.0), ("will do", 0.4), ("may or may not be for you", 0.0),
    ("is not the best place to start", -0.6),
    ("will test your love of them", -0.9), ("will cure you of it", -1.6), ("is best avoided", -1.6),
    ("will only annoy you", -1.3), ("will leave you hungry", -0.8),
]
# "With a running time of two hours, The Copper Ferry ..."
RUNNING = [
    ("is never too long", 0.9), ("seems to last a moment", 1.5), ("could have been twice as long for me", 1.7),
    ("is about the right length", 0.5), ("leaves you wanting more", 1.3), ("does not waste a minute", 1.4),
    ("asks for some patience", -0.2), ("is longer than most", 0.0), ("is far too long", -1.0),
    ("feels endless", -1.5),
    ("still has nothing to say", -1.4), ("takes forever to get going", -1.0), ("is a test of endurance", -1.6),
]
# "I have seen every film by Ines Falk, and this one ..."
RANKS = [
    ("is the best of them", 1.8), ("is my favourite", 1.7), ("is among the finest", 1.6), ("is a step forward", 1.0),
    ("shows new confidence", 1.1), ("is the strangest", 0.0), ("is somewhere in the middle", 0.0),
    ("is the longest", 0.0),
    ("is a step back", -1.0), ("is the weakest", -1.4), ("is the first that bored me", -1.2),
    ("is by far the worst", -1.9),
]
# Sentences built around an aspect: ("{np}" is the noun phrase, grade)
PILLARS = [
    ("{np} alone [is|are] worth the ticket.", 1.6), ("{np} save[s] it in the end.", 0.6),
    ("I could praise {np} for hours.", 1.5),
    ("I especially liked {np}.", 1.2), ("I did not mind {np}.", 0.3),
    ("without {np} there would be little left.", -0.3),
    ("I could have done without {np}.", -0.8), ("not even {np} can save it.", -1.4), ("I will spare you {np}.", -1.2),
    ("the less said about {np}, the better.", -1.4), ("opinions about {np} will differ.", 0.0),
]
