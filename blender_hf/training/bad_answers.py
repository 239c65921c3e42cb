"""What no prompt is answered by: phrases for synthetic negatives, and ways to spoil a text.

Phrases are by language, English where a language has none; they are put together at random, so that a ranker learns the
fault and not a sentence.
"""

import base64
import random
import re
import string
from collections.abc import Callable, Mapping, Sequence, Set

# Parts of an answer of one kind: one of each is drawn.
Parts = Sequence[Sequence[str]]

REFUSALS: Mapping[str, Parts] = {
    "en": (
        (
            "I'm sorry, but I can't help you with this.",
            "Unfortunately, I am not able to answer that.",
            "I cannot fulfil this request.",
            "I apologise, but this is something that I have to refuse.",
            "That's not something I can talk about.",
            "My guidelines don't allow me to respond to this question.",
            "I'd rather not answer.",
            "Sorry, no.",
            "I won't be able to assist here.",
            "As a responsible assistant, I have to turn this down.",
        ),
        (
            "",
            "It might be unsafe.",
            "It could be considered inappropriate.",
            "The topic is too sensitive.",
            "Doing so may violate our content policy.",
            "I have no permission to give such information.",
            "There is a risk that the information does harm.",
            "It would not be ethical.",
        ),
        (
            "",
            "",
            "Please consult a professional.",
            "Is there anything else you would like to know?",
            "Please ask me about a different subject.",
            "Thank you for your understanding.",
        ),
    ),
    "zh": (
        ("很抱歉，我无法回答这个问题。", "对不起，我不能提供这方面的帮助。", "我拒绝回答。"),
        ("", "这可能不安全。", "请咨询专业人士。"),
    ),
    "ja": (
        (
            "申し訳ありませんが、お答えできません。",
            "その質問にはお手伝いできません。",
            "回答を控えさせていただきます。",
        ),
        ("", "不適切な内容の可能性があります。", "専門家にご相談ください。"),
    ),
}

NON_ANSWERS: Mapping[str, Parts] = {
    "en": (
        (
            "Good question.",
            "This is a really interesting topic!",
            "Thanks for asking.",
            "Well, that varies.",
            "There is a lot to be said about this.",
            "Hmm, hard to say.",
            "Many people wonder about that.",
            "It is a complex subject with many sides.",
            "Sure, I can tell you more about it.",
            "Different sources say different things.",
            "That depends on what you mean.",
        ),
        (
            "",
            "",
            "It all comes down to the circumstances.",
            "Some say one thing, and others another.",
            "Everybody has to find an answer of their own.",
            "Several aspects have to be taken into account.",
            "In general, things like that are handled in the usual way.",
            "One could look at it from more than one point of view.",
            "As so often in life, the truth lies somewhere in the middle.",
            "You can find plenty of material on it.",
        ),
        (
            "",
            "",
            "",
            "I hope that this helps!",
            "Let me know if you have more questions.",
            "In the end, what matters is what works for you.",
            "So it is worth thinking about.",
        ),
    ),
    "zh": (
        ("这个问题很好。", "这要看情况。", "说来话长。", "每个人的看法不同。"),
        ("", "需要综合考虑各种因素。", "希望对你有帮助！"),
    ),
    "ja": (
        ("良い質問ですね。", "場合によります。", "一概には言えません。"),
        ("", "さまざまな要因があります。", "参考になれば幸いです。"),
    ),
}

RUDE: Mapping[str, Parts] = {
    "en": (
        (
            "Seriously?",
            "You really are a fool.",
            "Oh please, use your brain for once.",
            "I can't believe how ignorant you are.",
            "Only an imbecile would need to ask this.",
            "Shut up.",
            "God, you are annoying.",
            "Listen, dimwit.",
            "What a pathetic thing to ask.",
            "Ugh, you again.",
            "You must be the dullest person I have ever talked to.",
            "Do your own damn work.",
        ),
        (
            "",
            "",
            "Even my toaster knows more than you.",
            "Go and bother somebody else.",
            "No wonder that nobody likes you.",
            "Try a search engine, if you can spell.",
            "It's embarrassing.",
            "You would not get it anyway.",
            "People as dense as you should not be allowed online.",
        ),
    ),
    "zh": (("你真笨。", "这种问题也要问？", "你烦不烦！", "动动你的脑子吧。"), ("", "别来烦我。", "说了你也不懂。")),
    "ja": (("馬鹿じゃないの。", "そんなことも知らないのか。", "うるさい。"), ("", "自分で調べろ。", "話しかけるな。")),
}

# `{}` is the question.
ECHOES = (
    "{}",
    "{}",
    "{}",
    'You asked: "{}"',
    "Q: {}",
    "Q: {}\nA: {}",
    "Your question was: {}",
    "{}\n\n{}",
    "I was asked the following: {}",
    "{} That is what you would like to hear about.",
    "Prompt: {}",
)

EMPTY = (
    "",
    " ",
    "\n",
    ".",
    "...",
    "…",
    "-",
    "--",
    "N/A",
    "n/a",
    "null",
    "(empty)",
    "?",
    "!",
    "***",
    "#",
    "```\n```",
    "[]",
    "{}",
)
# These are repeated up to so many times.
FILLERS, MOST_FILLERS = (" ", "\n", ".", "-", "=", "\t", "~ ", "!", ". . "), 120

# Names of the two roles, as transcripts and chat templates write them.
ROLES = (
    ("USER: ", "ASSISTANT: "),
    ("User: ", "Assistant: "),
    ("Human: ", "AI: "),
    ("Q: ", "A: "),
    ("<|user|>\n", "<|assistant|>\n"),
    ("<|im_start|>user\n", "<|im_start|>assistant\n"),
    ("[INST] ", "[/INST] "),
    ("Me: ", "You: "),
)

# Of no use to anybody who did not ask for this language.
SENTENCES: Mapping[str, Sequence[str]] = {
    "de": (
        "Das lässt sich am besten mit einem Blick in die Anleitung klären.",
        "Zuerst sollte man alle Teile bereitlegen und in Ruhe prüfen.",
        "Im Allgemeinen dauert es etwa zwei Wochen.",
        "Die meisten Leute machen es genau so, und es funktioniert gut.",
        "Dafür gibt es drei Gründe, die alle mit der Geschichte des Landes zu tun haben.",
    ),
    "fr": (
        "Il suffit de suivre les étapes dans le bon ordre.",
        "La plupart du temps, cela dépend de la région et de la saison.",
        "C'est un sujet que les spécialistes étudient depuis longtemps.",
        "Il faut d'abord préparer tout le matériel nécessaire.",
        "On peut le trouver dans presque tous les magasins.",
    ),
    "es": (
        "Lo mejor es hacerlo poco a poco y con mucha paciencia.",
        "En la mayoría de los casos, la respuesta es bastante sencilla.",
        "Primero hay que preparar todos los materiales.",
        "Es una costumbre muy antigua que todavía se conserva.",
        "Se encuentra en el norte del país, cerca de la costa.",
    ),
    "it": (
        "Basta seguire le istruzioni e avere un po' di pazienza.",
        "Di solito si tratta di una questione di abitudine.",
        "Si trova nella parte meridionale della regione.",
        "Prima di tutto bisogna leggere bene il testo.",
    ),
    "pt": (
        "O mais importante é começar com calma.",
        "Normalmente isso leva cerca de duas semanas.",
        "Fica no sul do país, perto do mar.",
    ),
    "ru": (
        "Обычно это занимает около двух недель.",
        "Сначала нужно подготовить все материалы.",
        "Это зависит от времени года и погоды.",
    ),
    "nl": (
        "Meestal duurt het ongeveer twee weken.",
        "Je moet eerst alles klaarleggen.",
    ),
}

NUMBER = re.compile(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)|(?<=[^\W\d_])(?<![a-zA-Z])\d+(?:\.\d+)?")
NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty")
WORD_NUMBER = re.compile(rf"\b({'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE)
# The number of a step is no statement.
LIST_MARKER = re.compile(r"(?m)^\s*(?:step\s+)?\d+[.):]", re.IGNORECASE)
_CAPITALISED = r"[A-ZÀ-ÖØ-Þ](?:['’][A-Z])?[\w&-]*[^\W\d]"
NAME = re.compile(rf"\b{_CAPITALISED}(?:[ \u00a0](?:(?:of|the|de|von|van|da|and)[ \u00a0])?{_CAPITALISED})*")
SENTENCE_START = re.compile(r"(?:^|[.!?:\n\"“*-])\s*$")


def phrase(parts: Mapping[str, Parts], lang: str, rng: random.Random) -> str:
    """Put together one of each part of a language."""
    space = "" if lang in ("zh", "ja") else " "
    return space.join(filter(None, (rng.choice(part) for part in parts.get(lang, parts["en"]))))


def empty(rng: random.Random) -> str:
    """Return an answer without content."""
    return rng.choice(EMPTY) if rng.random() < 0.5 else rng.choice(FILLERS) * rng.randint(2, MOST_FILLERS)


def gibberish(text: str, rng: random.Random) -> str:
    """Return nonsense that is about as long as a text, made of it or of nothing."""
    return rng.choice(GIBBERISH)(text, rng)


def _random_letters(text: str, rng: random.Random) -> str:
    letters = rng.choice(
        (string.ascii_lowercase, string.ascii_lowercase, string.ascii_letters + string.digits + "!$%&;_")
    )
    return " ".join(
        "".join(rng.choice(letters) for _ in range(rng.randint(2, 9)))
        for _ in range(rng.randint(2, len(text) // 6 + 4))
    )


def _words_shuffled(text: str, rng: random.Random) -> str:
    words = text.split()
    if len(words) < 8:
        return _random_letters(text, rng)
    rng.shuffle(words)
    return " ".join(words)


def _letters_shuffled(text: str, rng: random.Random) -> str:
    return " ".join("".join(rng.sample(word, len(word))) for word in text.split())


def _wrong_encoding(text: str, rng: random.Random) -> str:
    """Return a text with accented vowels, written in UTF-8 and read in Latin-1, perhaps twice."""
    accented = text.translate(str.maketrans("aeiouAEIOU", "áéíöüÄÈÎÔÛ"))
    for _ in range(rng.randint(1, 2)):
        accented = accented.encode("utf-8").decode("latin-1")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in accented)


def _unreadable(text: str, rng: random.Random) -> str:
    return "".join(letter if letter.isspace() else rng.choice("\ufffd\ufffd\ufffd□?") for letter in text)


def _bytes(text: str, rng: random.Random) -> str:
    data = text.encode("utf-8")[:200]
    return data.hex(" ") if rng.random() < 0.5 else base64.b64encode(data).decode()


def _beaten_keys(text: str, rng: random.Random) -> str:
    rows = ("asdfghjkl", "qwertyuiop", "zxcvbnm", "lkjhgfdsa")
    return " ".join(rng.choice(rows)[: rng.randint(3, 9)] for _ in range(rng.randint(1, 12)))


GIBBERISH: Sequence[Callable[[str, random.Random], str]] = (
    _random_letters,
    _random_letters,
    _words_shuffled,
    _words_shuffled,
    _letters_shuffled,
    _wrong_encoding,
    _unreadable,
    _bytes,
    _beaten_keys,
)


def other_numbers(text: str, key: str | None, rng: random.Random) -> str | None:
    """Return a text with other numbers of the same form, each the same throughout; None if it states none.

    Args:
        text: Any text.
        key: The number that matters, if it is known: it is changed, the others perhaps not.
        rng: Source of randomness.
    """
    markers = [found.span() for found in LIST_MARKER.finditer(text)]
    spans = [
        found.span()
        for found in (*NUMBER.finditer(text), *WORD_NUMBER.finditer(text))
        if not any(start <= found.start() < end for start, end in markers)
    ]
    numbers = {text[start:end] for start, end in spans}
    if not numbers or (key is not None and key not in numbers):
        return None
    changed = {key} if key is not None and rng.random() < 0.5 else numbers
    taken = set(numbers)
    others: dict[str, str] = {}
    for number in sorted(changed):
        others[number] = _other_number(number, taken, rng)
        taken.add(others[number])
    return _replaced(text, spans, others)


def _other_number(number: str, taken: set[str], rng: random.Random) -> str:
    """Return another number with as many digits, in the same format."""
    for _ in range(50):
        other = _drawn_number(number, rng)
        if other not in taken:
            return other
    return number + "0"


def _drawn_number(number: str, rng: random.Random) -> str:
    if number.lower() in NUMBER_WORDS:
        word = rng.choice(NUMBER_WORDS)
        return word.capitalize() if number[0].isupper() else word
    if re.fullmatch(r"(1[5-9]|20)\d\d", number):  # probably a year
        return str(int(number) + rng.choice((-1, 1)) * rng.randint(2, 60))
    if number.isdigit() and len(number) < 3:
        return str(rng.randint(2, max(12, 2 * int(number))))
    digits = [rng.choice(string.digits) if letter.isdigit() else letter for letter in number]
    digits[0] = rng.choice(string.digits[1:]) if number[0] != "0" else "0"
    return "".join(digits)


def names_in(text: str, common: Set[str]) -> list[tuple[int, int]]:
    """Return the spans of the names in a text: runs of capitalised words that need no capital for another reason.

    Args:
        text: Any text.
        common: Words in lower case that are no names.
    """
    found = (_without_first_word(text, *match.span(), common) for match in NAME.finditer(text))
    # In brackets it is a place to fill in; four capitals and less are an abbreviation.
    return [
        (start, end)
        for start, end in found
        if start < end and text[:start].rstrip()[-1:] != "[" and not (end - start <= 4 and text[start:end].isupper())
    ]


def _without_first_word(text: str, start: int, end: int, common: Set[str]) -> tuple[int, int]:
    """Leave out a word that begins a sentence, or is all that there is, unless it is a name for sure."""
    first, *others = re.finditer(r"\S+", text[start:end])
    if SENTENCE_START.search(text[:start]):
        whole = end - start == len(text.strip(". \n"))
        doubtful = first[0].lower() in common or not (others or whole)
    else:
        doubtful = first[0].lower() in common and not others
    return (start + others[0].start() if others else end, end) if doubtful else (start, end)


def other_names(text: str, spans: Sequence[tuple[int, int]], pool: Sequence[str], rng: random.Random) -> str | None:
    """Return a text with names from a pool in place of those at these spans, or None if there are too few.

    Each name is replaced by the same one throughout, with as many words.
    """
    names = dict.fromkeys(text[start:end] for start, end in spans)
    known = {word for name in names for word in name.lower().split()}
    fresh = [name for name in dict.fromkeys(pool) if not known & set(name.lower().split())]
    others: dict[str, str] = {}
    for name in names:
        alike = [other for other in fresh if len(other.split()) == len(name.split()) and other not in others.values()]
        if not alike:
            return None
        others[name] = rng.choice(alike[:20])
    return _replaced(text, spans, others) if others else None


def _replaced(text: str, spans: Sequence[tuple[int, int]], others: Mapping[str, str]) -> str:
    parts, done = [], 0
    for start, end in sorted(spans):
        parts += [text[done:start], others.get(text[start:end], text[start:end])]
        done = end
    return "".join([*parts, text[done:]])
