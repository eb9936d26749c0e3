"""Corpora with known answers for retrieval_study.py: documents, questions, where each answer is.

Calibration and test tasks share no text, no sentence pattern, no names. A corpus is a list of
documents, each with a header line "File: PATH"; a question knows its answer and the document and
token that the answer begins at.
"""

import dataclasses
import random
import re

BLOCK = 128

WORDS = {
    "calibration": (
        "misty brave amber quiet hollow rapid silver gentle crimson dusty eager frozen golden "
        "humble ivory jolly lucky mellow noble odd plain rustic shiny tidy urban vivid witty "
        "young zesty bitter calm dense".split(),
        "owl lantern harbor meadow pebble falcon anchor barrel candle dragon engine feather garden "
        "hammer island jacket kettle ladder mirror needle orchard pillow quarry ribbon saddle "
        "tunnel umbrella violin walnut window yogurt zebra".split()),
    "test": (
        "spotted ancient bright clumsy distant elegant fierce grumpy hidden icy jagged keen lonely "
        "modest nimble orange polite quick rough slender thirsty upbeat velvet wild broad copper "
        "damp early faint gray hasty linen".split(),
        "badger bottle castle donkey elbow fountain glacier helmet insect jungle kitten lizard "
        "monkey napkin oyster parrot quilt rocket spider teapot uncle vessel wagon otter bridge "
        "cactus drawer eagle ferry goblet hedge igloo".split()),
}

PEOPLE = {
    "calibration": (
        "Marta Ivan Sofia Pedro Helga Tomas Irene Oskar Paula Felix Greta Bruno".split(),
        "Lindqvist Marconi Okafor Petrov Delgado Haas Novak Tanaka Fischer Moreau "
        "Kowalski Duarte".split()),
    "test": (
        "Agnes Boris Clara Dmitri Elena Frank Gloria Henrik Ingrid Julian Katya Lorenz".split(),
        "Ashworth Bellini Castellan Drummond Eriksson Fontaine Grimaldi Hargreave Ibsen "
        "Jansen Kirkland Lombardi".split()),
}

# sentence, question, kind of the value; {p} is a person
FACTS = {
    "calibration": [
        ("{p} plays the {v} in a local orchestra.", "Which instrument does {p} play?",
         "violin trumpet cello harp flute drums piano clarinet".split()),
        ("{p} drove to work in a {v} car.", "What is the colour of {p}'s car?",
         "green yellow purple white black pink brown red".split()),
        ("For eight years {p} studied {v} at the university.", "What subject did {p} study?",
         "chemistry geology medicine law history botany physics music".split()),
        ("The cat of {p} answers to the name of {v}.", "What is the name of {p}'s cat?",
         "Pixel Muffin Shadow Biscuit Ginger Pepper Simba Waffle".split()),
    ],
    "test": [
        ("{p} was born in the small town of {v}.", "In which town was {p} born?",
         "Marlow Zermatt Arendal Visby Kotor Sintra Bergen Gmunden".split()),
        ("{p} spends every weekend growing {v} on a rented plot.", "What does {p} grow?",
         "tomatoes pumpkins tulips carrots onions cherries beans roses".split()),
        ("After the war {p} found work as a {v} near the harbour.", "What was the job of {p}?",
         "baker welder tailor fisherman carpenter nurse teacher plumber".split()),
        ("{p} sold the house for {v} crowns.", "For how many crowns did {p} sell the house?",
         "4100 5200 6300 7400 8500 9600 2700 3800".split()),
    ],
}


@dataclasses.dataclass
class Question:
    task: str
    text: str
    answer: str
    document: int = -1
    token: int = -1        # of the document: where the answer's value begins
    tokens: int = 0        # of the value
    line_begin: int = 0    # tokens of the needle's sentence
    line_end: int = 0


@dataclasses.dataclass
class Needle:
    """A sentence put into a text, and the question it answers (None: a distractor)."""
    sentence: str
    answer: str
    question: str = None


@dataclasses.dataclass
class Corpus:
    name: str
    documents: list = dataclasses.field(default_factory=list)   # token ids
    questions: list = dataclasses.field(default_factory=list)

    def tokens(self):
        return sum(len(d) for d in self.documents)


def keys(random_, split, count):
    first, second = WORDS[split]
    pairs = [f"{a}-{b}" for a in first for b in second]
    random_.shuffle(pairs)
    if count > len(pairs):
        pairs += [f"{p}-{i}" for i in range(2, 2 + count // len(pairs)) for p in pairs]
    return pairs[:count]


def number(random_):
    return str(random_.randrange(10000, 100000))


def keyed(pattern, question, key_form=lambda k: k):
    """Needles that differ in a key and a number."""
    def make(random_, split, count):
        needles = []
        for key in keys(random_, split, count):
            value = number(random_)
            form = key_form(key)
            sentence = pattern.format(k=form, v=value, n=random_.randrange(10, 99))
            needles.append(Needle(sentence, value, question.format(k=form)))
        return needles
    return make


def facts(random_, split, count):
    first, last = PEOPLE[split]
    people = [f"{a} {b}" for a in first for b in last]
    random_.shuffle(people)
    needles = []
    for i in range(count):
        sentence, question, values = random_.choice(FACTS[split])
        value = random_.choice(values)
        person = people[i % len(people)]
        needles.append(Needle(sentence.format(p=person, v=value), value, question.format(p=person)))
    return needles


def camel(key):
    return key.replace("-", "_")


NEEDLES = {
    ("calibration", "multikey"): keyed("The special magic number for {k} is: {v}.",
                                       "What is the special magic number for {k}?"),
    ("calibration", "records"): keyed("Status active, region north, code of {k}: {v}.",
                                      "What is the code of {k}?"),
    ("calibration", "code"): keyed("{k} = {v}", "What is the value of {k}?",
                                   lambda k: camel(k).upper()),
    ("calibration", "log"): keyed("Nov {n} 10:21:07 gateway {k}[71{n}]: request done, session {v}",
                                  "Which session does the log give for {k}?"),
    ("calibration", "facts"): facts,
    ("test", "multikey"): keyed("One of the secret access codes, the one for {k}, is {v}.",
                                "What is the secret access code for {k}?"),
    ("test", "records"): keyed("Shelf {n}: item {k}, state stored, colour grey, tag {v}.",
                               "What is the tag of the item {k}?"),
    ("test", "code"): keyed("def {k}_timeout(): return {v}",
                            "What number does the function {k}_timeout return?", camel),
    ("test", "log"): keyed("2026-03-04 12:31:{n} worker {k} finished job with status {v}",
                           "With which status did the worker {k} finish?"),
    ("test", "german"): keyed("Der geheime Zugangscode von {k} lautet {v}.",
                              "What is the secret access code (Zugangscode) of {k}?"),
    ("test", "facts"): facts,
}


def cut(random_, text, size):
    """Pieces of a text of 800 .. 24000 characters, log-uniform, at line ends, size in all."""
    pieces, at, total = [], 0, 0
    while total < size and at < len(text):
        length = int(800 * 30 ** random_.random())
        end = text.find("\n", at + length)
        end = len(text) if end < 0 else end
        piece = text[at:end].strip("\n")
        at = end
        if piece:
            pieces.append(piece[:size - total])
            total += len(piece)
    return pieces


def insert(random_, piece, needles, lines):
    """Puts needles in a piece, before a line or behind a sentence. RETURNS text and spans."""
    if lines:
        places = [m.start() for m in re.finditer(r"(?m)^", piece)]
    else:
        places = [0] + [m.end() for m in re.finditer(r"[.!?]\s+", piece)]
    chosen = sorted(random_.choice(places) for _ in needles)
    text, spans, at = "", [], 0
    for place, needle in zip(chosen, needles):
        text += piece[at:place]
        spans.append((len(text), len(text) + len(needle.sentence)))
        text += needle.sentence + ("\n" if lines else " ")
        at = place
    return text + piece[at:], spans


def locate(encoding, begin, end):
    """Tokens that overlap characters begin .. end."""
    inside = [i for i, (a, b) in enumerate(encoding.offsets) if a < end and b > begin]
    return inside[0], inside[-1] + 1


def add_document(corpus, tokenizer, path, text, placed):
    """placed: (needle, task, begin, end) in characters of text."""
    header = f"File: {path}\n\n"
    encoding = tokenizer.encode(header + text + "\n", add_special_tokens=False)
    corpus.documents.append(encoding.ids)
    for needle, task, begin, end in placed:
        if needle.question is None:
            continue
        begin, end = begin + len(header), end + len(header)
        value = (header + text).rindex(needle.answer, begin, end)
        first, last = locate(encoding, value, value + len(needle.answer))
        line = locate(encoding, begin, end)
        corpus.questions.append(Question(task, needle.question, needle.answer,
                                         len(corpus.documents) - 1, first, last - first, *line))


def haystack(name, tokenizer, split, text, tokens, tasks, asked, keyed_needles, seed, lines):
    """A corpus of about `tokens` tokens of text with needles of some tasks, `asked` of each asked,
    spread evenly over the documents by size."""
    random_ = random.Random(seed)
    sample = text[:60000]
    ratio = len(sample) / len(tokenizer.encode(sample, add_special_tokens=False).ids)
    needles = []
    for task in tasks:
        made = NEEDLES[split, task](random_, split, max(asked, keyed_needles))
        random_.shuffle(made)
        for needle in made[asked:]:
            needle.question = None
        needles += [(n, task) for n in made]
    size = int(tokens * ratio - sum(len(n.sentence) for n, _ in needles) * 1.4)
    pieces = cut(random_, text, size)
    random_.shuffle(needles)
    weights = [len(p) for p in pieces]
    homes = [[] for _ in pieces]
    for i, item in enumerate(needles):   # stratified: one in each equal share of the text
        target = (i + random_.random()) / len(needles) * sum(weights)
        for j, weight in enumerate(weights):
            if target < weight or j == len(weights) - 1:
                homes[j].append(item)
                break
            target -= weight
    corpus = Corpus(name)
    for j, (piece, home) in enumerate(zip(pieces, homes)):
        text_, spans = insert(random_, piece, [n for n, _ in home], lines)
        add_document(corpus, tokenizer, f"{name}/{j:04d}.txt", text_,
                     [(n, t, *s) for (n, t), s in zip(home, spans)])
    return corpus


def record_lines(name, tokenizer, split, tokens, asked, seed):
    """Nothing but near-identical lines, in documents of 40 .. 240 lines."""
    random_ = random.Random(seed)
    make = NEEDLES[split, "records"]
    line = make(random_, split, 1)[0].sentence
    a_line = len(tokenizer.encode(line + "\n", add_special_tokens=False).ids)
    needles = make(random_, split, tokens // a_line)
    random_.shuffle(needles)
    step = len(needles) / asked
    keep = {int((i + random_.random()) * step) for i in range(asked)}
    corpus, at = Corpus(name), 0
    while at < len(needles):
        count = random_.randrange(40, 240)
        text, placed = "", []
        for i in range(at, min(at + count, len(needles))):
            if i not in keep:
                needles[i].question = None
            placed.append((needles[i], "records", len(text), len(text) + len(needles[i].sentence)))
            text += needles[i].sentence + "\n"
        add_document(corpus, tokenizer, f"{name}/{at:06d}.txt", text, placed)
        at += count
    return corpus


def packages(name, tokenizer, dump, tokens, asked, seed):
    """Debian's package records as they are, 8 .. 40 a document; asked: version or maintainer."""
    random_ = random.Random(seed)
    records = []
    for paragraph in dump.split("\n\n"):
        fields = dict(re.findall(r"(?m)^([A-Z][\w-]+): (.+)$", paragraph))
        if {"Package", "Version", "Maintainer", "Section", "Description"} <= fields.keys():
            records.append("\n".join(f"{k}: {fields[k]}" for k in (
                "Package", "Version", "Maintainer", "Section", "Description")) + "\n")
    random_.shuffle(records)
    a_record = len(tokenizer.encode("\n".join(records[:50]), add_special_tokens=False).ids) / 50
    records = records[:int(tokens / a_record)]
    step = len(records) / asked
    keep = {int((i + random_.random()) * step) for i in range(asked)}
    corpus, at = Corpus(name), 0
    while at < len(records):
        count = random_.randrange(8, 40)
        text, placed = "", []
        for i in range(at, min(at + count, len(records))):
            package, version = re.match(r"Package: (.+)\nVersion: (.+)\n", records[i]).groups()
            if i in keep:
                end = records[i].index("\nMaintainer")
                placed.append((Needle(records[i], version,
                                      f"What is the version of the package {package}?"),
                               "packages", len(text), len(text) + end))
            text += records[i] + "\n"
        add_document(corpus, tokenizer, f"{name}/{at:06d}.txt", text, placed)
        at += count
    return corpus


# Questions that share hardly a word with the sentence: what only the model's own keys can find.
PARAPHRASES = {
    "calibration": [
        ("The physician at the village clinic earns {v} a month.",
         "How much salary does the doctor get?"),
        ("A total of {v} visitors came to the museum last summer.",
         "How many people went to see the exhibition?"),
        ("Our ferry leaves the pier at {v} every morning.", "When does the boat depart?"),
        ("The bakery sold {v} loaves in its first year.",
         "How much bread was bought from the shop?"),
        ("To open the safe, dial {v} and turn the handle.",
         "What is the combination of the vault?"),
        ("The bridge across the gorge measures {v} centimetres.",
         "How long is the crossing over the canyon?"),
        ("Lightning struck the old tower {v} times.",
         "How often was the ancient building hit by a storm?"),
        ("The orchestra's new piano cost {v} dollars.", "What was the price of the instrument?"),
        ("The satellite circles the planet every {v} seconds.",
         "What is the period of the spacecraft's orbit?"),
        ("The farmer harvested {v} kilograms of potatoes.", "How big was the crop from the field?"),
        ("The library's oldest manuscript has {v} pages.", "How thick is the antique book?"),
        ("The winner of the marathon collapsed after {v} steps.",
         "When did the champion runner fall down?"),
        ("The dentist pulled {v} teeth during his career.", "How many molars were extracted?"),
        ("The volcano spat ash for {v} hours.", "How long did the eruption last?"),
        ("The thief escaped with {v} coins.", "How much money was stolen by the burglar?"),
        ("The kettle boils at level {v} on this mountain.",
         "Which setting makes water hot up there?"),
    ],
    "test": [
        ("The headmaster's monthly pay is {v} francs.", "How much does the school principal earn?"),
        ("The submarine dived to {v} feet before turning.",
         "How deep did the underwater vessel go?"),
        ("The vineyard filled {v} bottles last autumn.", "How much wine was produced?"),
        ("The surgeon performed {v} operations at the hospital.",
         "How many patients did the doctor operate on?"),
        ("The locomotive hauled {v} tons of coal uphill.",
         "What weight of fuel did the train carry?"),
        ("The alarm is switched off by typing {v}.", "Which digits disable the security system?"),
        ("The beekeeper owns {v} hives by the river.",
         "How many colonies of insects does the honey maker have?"),
        ("The jeweller appraised the necklace at {v} pounds.",
         "What is the value of the piece of jewelry?"),
        ("The cathedral's organ has {v} pipes.",
         "How many tubes does the church instrument contain?"),
        ("The glacier retreated {v} metres over the decade.", "How far did the ice shrink?"),
        ("The auctioneer opened the bidding at {v} euros.",
         "What was the starting price at the sale?"),
        ("The lighthouse keeper climbed {v} stairs each night.",
         "How many steps did the guard of the beacon go up?"),
        ("The zoo's elephant eats {v} grams of hay daily.",
         "How much food does the largest animal consume?"),
        ("The printer jammed after {v} sheets of paper.", "When did the office machine get stuck?"),
        ("The telescope found {v} new stars in a year.",
         "How many suns did the observatory discover?"),
        ("The goalkeeper stopped {v} shots this season.",
         "How many attempts did the soccer player save?"),
        ("The reservoir holds {v} barrels of water.",
         "What is the capacity of the artificial lake?"),
        ("The tailor sewed {v} buttons on the uniforms.",
         "How many fasteners were attached to the soldiers' clothes?"),
        ("The parliament passed the bill with {v} votes.",
         "How many politicians supported the law?"),
        ("The taxi meter showed {v} at the end of the ride.", "What was the fare for the cab?"),
        ("The courier delivered {v} parcels before Christmas.",
         "How many packages did the postman bring?"),
        ("The chess master lost only {v} games.", "How often was the board game expert defeated?"),
        ("The wool of one sheep yields {v} metres of yarn.",
         "How much thread comes from a single lamb?"),
        ("The pharmacy keeps {v} pills in the cupboard.",
         "How many tablets of medicine are in stock?"),
    ],
}


def paraphrases(random_, split, count):
    needles = []
    for sentence, question in PARAPHRASES[split][:count]:
        value = number(random_)
        needles.append(Needle(sentence.format(v=value), value, question))
    return needles


NEEDLES["calibration", "paraphrase"] = paraphrases
NEEDLES["test", "paraphrase"] = paraphrases


def calibration_corpora(tokenizer, texts):
    """Corpora of 8K to 16K tokens, 16 to 32 questions a task."""
    split = "calibration"
    yield haystack("c-prose", tokenizer, split, texts["cal-prose"], 16384,
                   ["multikey", "facts", "paraphrase"], 32, 32, 1, False)
    yield haystack("c-code", tokenizer, split, texts["cal-code"], 16384, ["code"], 32, 32, 2, True)
    yield haystack("c-log", tokenizer, split, texts["cal-log"], 12000, ["log"], 32, 32, 3, True)
    yield record_lines("c-records", tokenizer, split, 16384, 32, 4)


def test_corpora(tokenizer, texts, length):
    """The test corpora of `length` Ki tokens. Needles that nobody asks for grow with the length."""
    tokens, needles = length * 1024, 32 * max(1, length.bit_length() - 3)
    yield haystack(f"prose{length}", tokenizer, "test", texts["prose"], tokens,
                   ["multikey", "facts", "paraphrase"], 32, needles, 10 + length, False)
    yield record_lines(f"records{length}", tokenizer, "test", tokens, 32, 11 + length)
    yield packages(f"packages{length}", tokenizer, texts["packages"], tokens, 32, 15 + length)
    for seed, task, lines in ((12, "code", True), (13, "log", True), (14, "german", False)):
        if len(texts[task]) > 2 * tokens:   # else the text is too short for this length
            yield haystack(f"{task}{length}", tokenizer, "test", texts[task], tokens, [task], 32,
                           needles, seed + length, lines)
