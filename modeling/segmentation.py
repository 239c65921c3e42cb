"""Splits a text into segments: the sentences of its prose, and whole blocks of all that has lines of its own.

A block is what would break if a line of it were missing, out of order or elsewhere: code, a list, a table, a quotation,
a formula, markup, verse, dialogue. Blocks are those of CommonMark (https://spec.commonmark.org), found by the first
lines that they have; what CommonMark does not know, such as verse, is stated at its rule.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

# A sentence ends here, but not after an initial or a common abbreviation. Languages without spaces have marks of their
# own; Thai has none, so its sentences are its lines.
BOUNDARY = re.compile(
    r"(?<=[.!?][\"'”’)\]])(?=\s)"
    r"|(?<=[.!?])(?<!\b[A-Z]\.)(?<!\b(?:Mr|Ms|Dr|St|vs)\.)(?<!\b(?:Mrs|e\.g|i\.e|etc)\.)(?=\s)"
    r"|(?<=[؟۔।॥።။៕])(?=\s)"
    r"|(?<=[。！？｡])(?![。！？｡…」』）”’》】\"')])"
    r"|(?<=[。！？｡][」』”])(?=[「『“])"
)
# No sentence ends within code, emphasis, a link or a formula.
INLINE = re.compile(
    r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)|\*\*(?=\S).+?\*\*|\[[^\]\n]*\]\([^)\n]*\)|\\\(.+?\\\)|(?<!\$)\$(?=\S)[^$\n]+(?<=\S)\$(?![\d$])"
    r"|(?<![\w*])\*(?=[^\s*])[^*\n]+(?<=\S)\*(?![\w*])|(?<!\w)_(?=[^\s_])[^_\n]+(?<=\S)_(?!\w)"
)
# The number of a list within a line belongs to what it numbers.
LIST_NUMBER = re.compile(r"\s*\(?(?:\d{1,3}|[A-Za-z])[.)]")

FENCE = re.compile(r"\s*(?P<fence>`{3,}(?=[^`]*$)|~{3,}|:{3,}(?=[ {]*\w))")  # `:::` of MyST, Docusaurus, Pandoc
ITEM = re.compile(
    r"\s*(?:\*\*|__)?(?:[-*+•◦▪‣·–—](?=\s|$)|[(（]?(?P<number>\d{1,3})(?:[.)](?=\s|$)|[、）．])|\(?[A-Za-z]\)(?=\s)|[①-⑳])\s*"
)
HEADING = re.compile(r" {0,3}#{1,6}(?=\s|$)")
UNDERLINE = re.compile(r" {0,3}(?:=+|-+)\s*$")
RULE = re.compile(r" {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$")
BOLD_LINE = re.compile(r"\s*(?:\*\*[^*]+\*\*|__[^_]+__)\s*[:：]?\s*$")
QUOTE = re.compile(r" {0,3}>")
TABLE_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
TABLE_ROW = re.compile(r"\s*(?:\||\+[-=+]+\+)")
INDENTED = re.compile(r" {4}|\t| {1,3}\t")
NESTED = re.compile(r" {2}|\t| \t")
MARKUP = re.compile(r" {0,3}<(?P<tag>[A-Za-z][\w-]*)(?=[\s>/]|$)")
PROLOGUE = re.compile(r" {0,3}<(?:\?|!(?!--))")  # of XML and HTML
FRONT_MATTER = re.compile(r"(?:--- *\n[\w-]+:(?s:.*?)^---|\+\+\+ *\n[\w-]+ ?=(?s:.*?)^\+\+\+) *$", re.MULTILINE)
PATCH = re.compile(r"(?:diff --git |Index: |--- |@@ -)")
NOTE = re.compile(r"\[[^\]\n]+\]:\s")
VALUE = re.compile(r"[{\[].*[}\]],?\s*$")
# What numbers or marks lines that CommonMark does not take for a list, if there are several: letters and Roman numbers
# with a point, Chinese numbers, symbols and emoji, times.
MARK = re.compile(
    r"\s*(?:\*\*)?(?:(?:[A-Za-z]|[ivxlc]{2,6}|[IVXLC]{2,6})\.(?=\s)|[(（]?[一二三四五六七八九十]{1,3}[、．)）]|\d\ufe0f?\u20e3"
    r"|[\u2190-\u21ff\u2300-\u23ff\u25a0-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]"
    r"|\[?\d{4}-\d\d-\d\d[ T]|\[?\d\d?:\d\d)"
)
COMMENT = re.compile(r" {0,3}<!--")
MATHS = re.compile(r"\\begin\{(?P<environment>[^}]+)\}")
SPEAKER = re.compile(r"\s*(?:\*\*|__)?(?P<name>[^\W\d_][\w .’'()-]{0,30})(?:\*\*|__)?\s?[:：](?:\*\*|__)?\s*\S")
CODE_END = ("{", "}", ";", "};", "})", "),", "],", "},")
# Lines of verse, of an address or of hard-wrapped text are no longer, those of prose mostly are.
SHORT_LINE = 80
BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
WIDE = re.compile("[\u2e80-\uffdc]")


class Piece(NamedTuple):
    """A sentence or a block.

    Args:
        end: Where it ends in the text.
        leads: Whether it belongs to what follows, as a heading does: to a "block", to "any", or to nothing ("").
        is_block: Whether it is a block.
    """

    end: int
    leads: str = ""
    is_block: bool = False


def split_segments(text: str) -> list[str]:
    r"""Split a text into sentences and blocks with leading white space; joined they are the stripped text.

    What leads to a block or a paragraph, such as a heading or "For example:", is part of the segment that it leads to.

    >>> split_segments("Yes. It is!\nSo:\n\n1. See.\n2. Go.\n\nThat is all.")
    ['Yes.', ' It is!', '\nSo:\n\n1. See.\n2. Go.', '\n\nThat is all.']
    """
    text = trimmed(text)
    segments: list[str] = []
    start = before = 0
    leads = ""
    for piece in _pieces(text):
        if leads == "block" and not piece.is_block:
            segments.append(text[start:before])
            start = before
        before, leads = piece.end, piece.leads
        if not leads:
            segments.append(text[start : piece.end])
            start = piece.end
    return [*segments, text[start:]] if start < len(text) else segments


def trimmed(text: str) -> str:
    """Return a text without the white space around it, except the indentation of code in its first line."""
    text = BLANK_LINES.sub("", text.rstrip(), count=1)
    return text if INDENTED.match(text) else text.lstrip()


def is_block(segment: str) -> bool:
    """Return whether a segment has lines of its own, so that nothing else may stand on its first or last line."""
    lines = _lines(trimmed(segment))
    return len(lines) > 1 or bool(_block(lines, 0)) or bool(_heading(lines, 0))


def is_open(segment: str) -> bool:
    """Return whether a segment is code whose fence is never closed, so that all that follows would be code too."""
    lines = _lines(trimmed(segment))
    start = 0
    while start < len(lines):
        if QUOTE.match(lines[start]) is None and (found := _opening(lines[start])):
            end = _closing(lines, start, found)
            if end is None:
                return True
            start = end - 1
        start += 1
    return False


def _pieces(text: str) -> Iterator[Piece]:
    lines = _lines(text)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def end_of(line: int) -> int:
        return starts[line] + len(lines[line].rstrip())

    start = done = 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        if end := _front_matter(lines, start):
            yield Piece(end_of(end - 1), is_block=True)
        elif end := _heading(lines, start):
            yield Piece(end_of(end - 1), leads="any")
        elif end := _block(lines, start):
            yield Piece(end_of(end - 1), _leads_from_block(lines[end - 1]), is_block=True)
        else:
            end = start + 1
            yield from _sentences(text, done, end_of(start))
        start, done = end, end_of(end - 1)


def _block(lines: Sequence[str], start: int) -> int:
    """Return where the block ends that begins in a line; 0 if none does."""
    return next((end for rule in BLOCKS if (end := rule(lines, start))), 0)


def _sentences(text: str, start: int, end: int) -> Iterator[Piece]:
    line = text[start:end]
    inline = [match.span() for match in INLINE.finditer(line)]
    ends = [m.start() for m in BOUNDARY.finditer(line) if not any(a < m.start() < b for a, b in inline)]
    before = 0
    for place in (*(end for end in ends if end < len(line)), len(line)):
        if place == len(line) or (line[before:place].strip() and not LIST_NUMBER.fullmatch(line[before:place])):
            yield Piece(start + place, _leads(line) if place == len(line) else "")
            before = place


def _leads(text: str) -> str:
    return "block" if text.rstrip().rstrip("*_ ").endswith((":", "：")) else ""


def _leads_from_block(line: str) -> str:
    """Return what the last line of a block leads to; an item that is a title, to its paragraph."""
    is_title = _is_item(line) and bool(_leads(line) or BOLD_LINE.match(ITEM.sub("", line, count=1)))
    return "any" if is_title else _leads(line)


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _front_matter(lines: Sequence[str], start: int) -> int:
    """Return where the settings end that some texts have before their first line."""
    found = FRONT_MATTER.match("".join(lines)) if start == 0 else None
    return 0 if found is None else found[0].count("\n") + 1


def _patch(lines: Sequence[str], start: int) -> int:
    """Return where a patch ends, in the form of `diff -u`."""
    run = lines[start : _until_blank(lines, start)]
    if PATCH.match(lines[start]) is None or not any(line.startswith("@@ -") for line in run):
        return 0
    end = start + len(run)
    # An empty line of the file is often written without its leading space.
    while end + 1 < len(lines) and re.match(r"[ +\-@\\]|diff --git ", lines[end + 1]) and not _is_item(lines[end + 1]):
        end = _until_blank(lines, end + 1)
    return end


def _marked(lines: Sequence[str], start: int) -> int:
    """Return where lines with marks end, if there are several; notes and values are whole lines by themselves."""
    if NOTE.match(lines[start]):
        return _until_blank(lines, start)
    marked = [start] if MARK.match(lines[start]) else []
    end = start + len(marked)
    for place in range(end, len(lines) if marked else end):
        if MARK.match(lines[place]):
            marked.append(place)
        elif not lines[place].strip():
            continue
        elif not lines[place - 1].strip() or _begins_block(lines[place]) or _heading(lines, place):
            break
        end = place + 1
    return end if len(marked) > 1 else start + 1 if VALUE.match(lines[start]) else 0


def _heading(lines: Sequence[str], start: int) -> int:
    """Return where a heading or a rule between sections ends."""
    line = lines[start].rstrip()
    if any(mark.match(line) for mark in (HEADING, BOLD_LINE, RULE, PROLOGUE)):
        return start + 1
    underlined = start + 1 < len(lines) and UNDERLINE.match(lines[start + 1]) and not _begins_block(line)
    return start + 2 if underlined and "|" not in line else 0


def _opening(line: str) -> str | None:
    """Return the fence that opens code in a line, after the mark of a list item or in mid-line too; None if none."""
    rest = line.rstrip()
    if (item := ITEM.match(rest)) is not None:
        rest = rest[item.end() :]
    if (found := FENCE.match(rest)) is not None:
        return found["fence"]
    return "```" if rest.count("```") % 2 and re.search(r"```\w*$", rest) else None


def _closing(lines: Sequence[str], start: int, fence: str) -> int | None:
    closes = re.compile(rf"\s*{re.escape(fence)}{re.escape(fence[0])}*\s*$")
    return next((place + 1 for place in range(start + 1, len(lines)) if closes.match(lines[place])), None)


def _fenced(lines: Sequence[str], start: int) -> int:
    if (fence := _opening(lines[start])) is None:
        return 0
    # As CommonMark has it, code that is not closed goes on to the end.
    return _closing(lines, start, fence) or (len(lines) if FENCE.match(lines[start]) else 0)


def _maths(lines: Sequence[str], start: int) -> int:
    line = lines[start]
    if (found := MATHS.search(line)) is not None:
        closing = re.compile(re.escape(f"\\end{{{found['environment']}}}"))
    elif line.count("$$") % 2:
        closing = re.compile(r"\$\$")
    elif line.rfind(r"\[") > line.rfind(r"\]"):
        closing = re.compile(r"\\\]")
    else:
        return start + 1 if line.strip().startswith(("$$", r"\[")) else 0
    if found is not None and closing.search(line):
        return start + 1
    return next((place + 1 for place in range(start + 1, len(lines)) if closing.search(lines[place])), 0)


def _markup(lines: Sequence[str], start: int) -> int:
    if COMMENT.match(lines[start]):
        return next((place + 1 for place in range(start, len(lines)) if "-->" in lines[place]), 0)
    if (found := MARKUP.match(lines[start])) is None:
        return 0
    opens = re.compile(rf"<{re.escape(found['tag'])}(?=[\s>]|$)(?![^>]*/>)", re.IGNORECASE)
    closes = re.compile(rf"</{re.escape(found['tag'])}\s*>", re.IGNORECASE)
    depth = 0
    for place in range(start, len(lines)):
        depth += len(opens.findall(lines[place])) - len(closes.findall(lines[place]))
        if depth <= 0:
            return place + 1
    return _until_blank(lines, start)


def _table(lines: Sequence[str], start: int) -> int:
    rule = lines[start + 1] if start + 1 < len(lines) else ""
    if "|" in lines[start] and "|" in rule and TABLE_RULE.match(rule):
        return _until_blank(lines, start)
    end = start
    while end < len(lines) and TABLE_ROW.match(lines[end]):
        end += 1
    return end if end > start + 1 else 0


def _quotation(lines: Sequence[str], start: int) -> int:
    return _until_blank(lines, start) if QUOTE.match(lines[start]) else 0


def _list(lines: Sequence[str], start: int) -> int:
    """Return where a list ends, with all that its items hold.

    More than in CommonMark, the paragraphs between two items belong to it if the second has the next number.
    """
    if not _is_item(lines[start]):
        return 0
    end = place = start
    number: int | None = None
    has_paragraphs = False
    while place < len(lines):
        line = lines[place]
        item = ITEM.match(line) if _is_item(line) else None
        if not line.strip():
            place += 1
            continue
        follows_blank = place > start and not lines[place - 1].strip()
        if _heading(lines, place) and item is None:
            following = None
        elif item is not None or NESTED.match(line) or not follows_blank:
            following = place
        else:
            following = _next_item(lines, place, number)
            has_paragraphs |= following is not None
        if following is None:
            # If the others have paragraphs and the last item is a title, the paragraph after it is its own.
            last = lines[end - 1].rstrip()
            is_title = _is_item(last) and not last.endswith((".", "!", "?", "```"))
            if not has_paragraphs or not is_title or _heading(lines, place):
                return end
            return _block(lines, place) or _until_blank(lines, place)
        if item is not None and item["number"] and not NESTED.match(line):
            number = int(item["number"])
        place = following if following > place else _fenced(lines, place) or place + 1
        end = place if following < place else end
    return end


def _is_item(line: str) -> bool:
    return ITEM.match(line) is not None and not RULE.match(line.rstrip())


def _next_item(lines: Sequence[str], start: int, number: int | None) -> int | None:
    """Return the line of the item that has the next number, if no heading comes before it."""
    place = start
    while number is not None and place < len(lines):
        item = ITEM.match(lines[place])
        if item is not None and item["number"] and not NESTED.match(lines[place]):
            return place if int(item["number"]) == number + 1 else None
        if lines[place].strip() and _heading(lines, place):
            return None
        place = _fenced(lines, place) or place + 1
    return None


def _indented(lines: Sequence[str], start: int) -> int:
    if not INDENTED.match(lines[start]) or (start and lines[start - 1].strip()):
        return 0
    end = start
    for place in range(start, len(lines)):
        if INDENTED.match(lines[place]) and lines[place].strip():
            end = place + 1
        elif lines[place].strip():
            break
    return end


def _dialogue(lines: Sequence[str], start: int) -> int:
    """Return where a dialogue ends: paragraphs that begin with the name of who speaks, one of them more than once."""
    names: list[str] = []
    end = place = start
    while place < len(lines):
        speaker = SPEAKER.match(lines[place])
        if speaker is None and not (names and lines[place - 1].strip() and lines[place].strip()):
            if lines[place].strip() or not names:
                break
            place += 1
            continue
        names += [speaker["name"]] if speaker is not None else []
        place += 1
        end = place
    return end if len(set(names)) < len(names) and len(set(names)) > 1 else 0


def _run(lines: Sequence[str], start: int) -> int:
    """Return where lines end that belong together without a mark: verse, addresses, wrapped text, unfenced code."""
    end = _until_block(lines, start)
    if any(map(_is_code, lines[start:end])) and end > start + 1:
        return _rest_of_code(lines, start, end)
    run = lines[start:end]
    is_run = all(map(SPEAKER.match, run)) or all(map(_is_short, run))
    return end if end > start + 1 and is_run else 0


def _rest_of_code(lines: Sequence[str], start: int, end: int) -> int:
    """Return where code without fences ends: after blank lines it goes on indented, or while a brace is open."""
    while True:
        following = next((place for place in range(end, len(lines)) if lines[place].strip()), None)
        if following in (None, end) or _fenced(lines, following):
            return end
        written = "".join(lines[start:end])
        if not NESTED.match(lines[following]) and written.count("{") <= written.count("}"):
            return end
        end = max(_until_block(lines, following), following + 1)


def _is_code(line: str) -> bool:
    return bool(NESTED.match(line)) or line.rstrip().endswith(CODE_END) or " --> " in line  # as in subtitles


def _is_short(line: str) -> bool:
    """Return whether a line is one of verse or the like: short, and not several sentences."""
    line = line.rstrip()
    ends = [match.start() for match in BOUNDARY.finditer(line)]
    return len(line) + len(WIDE.findall(line)) <= SHORT_LINE and all(end == len(line) for end in ends)


def _until_blank(lines: Sequence[str], start: int) -> int:
    return next((place for place in range(start, len(lines)) if not lines[place].strip()), len(lines))


def _until_block(lines: Sequence[str], start: int) -> int:
    """Return where a run of plain lines ends: at a blank line, or before what begins a block."""
    for place in range(start, len(lines)):
        if not lines[place].strip() or (place > start and (_begins_block(lines[place]) or _heading(lines, place))):
            return place
        if _table(lines, place) or _maths(lines, place):
            return place
    return len(lines)


def _begins_block(line: str) -> bool:
    return _is_item(line) or any(mark.match(line) for mark in (FENCE, QUOTE, MARKUP, COMMENT, TABLE_ROW, HEADING))


# Each returns the line after the block that begins in a line, or 0 if none of its kind does.
BLOCKS: tuple[Callable[[Sequence[str], int], int], ...] = (
    *(_fenced, _patch, _maths, _markup, _table, _quotation, _list, _marked, _indented, _dialogue, _run),
)
