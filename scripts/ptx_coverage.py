"""Which instructions of the PTX ISA the interpreter executes.

It holds pos/cuda_impl/ptx/isa.txt (the ISA's instructions; its head has the
language) against opcodes.def (the interpreter's). Part of gen-coverage.
"""
import collections
import re

ISA = "pos/cuda_impl/ptx/isa.txt"
OPCODES = "pos/cuda_impl/ptx/opcodes.def"

Variant = collections.namedtuple(
    "Variant", "line group base pattern reason supported refused")


class Stale(Exception):
    """What has to change in ISA; `lines` can be mended by removing reasons."""

    def __init__(self, messages, lines):
        super().__init__("\n".join(messages))
        self.lines = lines


def read_opcodes(text):
    """Patterns of opcodes.def by base: [[choice, optional], ...] each."""
    macros = {}
    rows = collections.defaultdict(list)

    def evaluate(expression):
        parts = re.findall(r'"([^"]*)"|(\w+)', expression)
        return "".join(quoted if not name else macros[name]
                       for quoted, name in parts)

    for line in text.splitlines():
        macro = re.match(r"#define (\w+)\s+(.*)", line)
        row = re.match(r"POS_PTX_OP\((\w+),\s*(.*?),\s*k\w+,", line)
        if macro:
            macros[macro[1]] = evaluate(macro[2])
        elif row:
            rows[row[1]].append(parse_pattern(evaluate(row[2])))
    return rows


def parse_pattern(pattern):
    choices = []
    for word in pattern.split():
        optional = word.endswith("?")
        choices.append((word.rstrip("?").split("|"), optional))
    return choices


def fits(row, words):
    """As Fits in opcodes.cc."""
    left = list(words)
    for choice, optional in row:
        found = next((w for w in left if w in choice), None)
        if found is not None:
            left.remove(found)
        elif not optional:
            return False
    return not left


def spellings(pattern):
    """Word lists that together have each word of the pattern once, with the
    first choice of the others, and what the changed word is."""
    choices = [(["", *words] if optional else words)
               for words, optional in parse_pattern(pattern)]
    first = [words[0] for words in choices]
    yield [w for w in first if w], ""
    for i, words in enumerate(choices):
        for word in words[1:]:
            picked = first[:i] + [word] + first[i + 1:]
            yield [w for w in picked if w], word


def read_isa(text, rows):
    group, macros, variants = "", {}, []

    def expand(part):
        return re.sub(r"\$(\w+)", lambda m: macros[m[1]], part)

    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        macro = re.match(r"\$(\w+) = (.*)", line)
        title = re.match(r"\[(.*)\]$", line)
        if macro:
            macros[macro[1]] = expand(macro[2])
            continue
        if title:
            group = title[1]
            continue
        body, _, reason = line.partition(" -- ")
        base, _, pattern = body.partition(" ")
        pattern = expand(pattern.strip())
        taken, refused = 0, []
        for words, changed in spellings(pattern):
            if any(fits(row, words) for row in rows[base]):
                taken += 1
            else:
                refused.append(changed)
        variants.append(Variant(number, group, base, pattern, expand(reason),
                                taken, refused))
    return variants


def read(root):
    rows = read_opcodes((root / OPCODES).read_text())
    variants = read_isa((root / ISA).read_text(), rows)
    messages, lines = [], []
    known = {v.base for v in variants}
    for base in sorted(set(rows) - known):
        messages.append(f"{ISA}: has no {base}, {OPCODES} does")
    for v in variants:
        name = f"{ISA}:{v.line}: {v.base} {v.pattern}"
        if v.reason and not v.refused:
            messages.append(f"{name}: is supported, remove ` -- {v.reason}`")
            lines.append(v.line)
        elif v.refused and not v.reason:
            what = "" if v.supported == 0 else (
                " with " + ", ".join(w or "the first words" for w in v.refused))
            messages.append(f"{name}: refused{what}, and no reason why")
    if messages:
        raise Stale(messages, lines)
    return variants


def fix(root, lines):
    """Removes the reasons in these lines."""
    text = (root / ISA).read_text().splitlines()
    for number in lines:
        text[number - 1] = text[number - 1].partition(" -- ")[0].rstrip()
    (root / ISA).write_text("\n".join(text) + "\n")


def spelled(variant):
    """Base and the words that every spelling has first: enough to find it."""
    words = [variant.base]
    types = r"[a-z]+\d+(x\d)?$|pred$"
    for choice, optional in parse_pattern(variant.pattern):
        if optional:
            continue
        if len(choice) > 3 and len(words) > 1:
            continue
        if all(re.match(types, word) for word in choice) and len(choice) > 4:
            continue
        words.append("/".join(choice))
    return ".".join(words)


def in_order(items):
    return list(dict.fromkeys(items))


def report(root):
    variants = read(root)
    groups = in_order(v.group for v in variants)
    out = ["\n## PTX instructions\n",
           "What the interpreter of the simulated device executes of PTX 9.0. A "
           "*form* is one line\nof pos/cuda_impl/ptx/isa.txt: an instruction "
           "with types and modifiers that belong\ntogether. A kernel that can "
           "reach an instruction that is refused cannot be\nlaunched: "
           "`CUDA_ERROR_INVALID_PTX`, and the log names instruction and line.\n",
           "| group | forms supported | in part | refused |", "|---|---|---|---|"]
    total = collections.Counter()
    for group in [*groups, None]:
        count = collections.Counter()
        for v in variants:
            if group in (v.group, None):
                state = ("refused" if not v.supported else
                         "part" if v.refused else "supported")
                count[state] += 1
        title = group or "**all**"
        total = count
        out.append(f"| {title} | {count['supported']} of "
                   f"{sum(count.values())} | {count['part']} | "
                   f"{count['refused']} |")
    assert sum(total.values()) == len(variants)
    for group in groups:
        out.append(f"\n### {group}")
        out += details([v for v in variants if v.group == group])
    return "\n".join(out) + "\n"


def details(variants):
    out = []
    supported = in_order(f"`{spelled(v)}`" for v in variants if not v.refused)
    if supported:
        out.append("\nSupported:\n" + wrap(supported))
    part = [v for v in variants if v.supported and v.refused]
    if part:
        out.append("\nSupported in part:")
        for v in part:
            words = ", ".join(f"`.{w}`" if w else "other words"
                              for w in in_order(v.refused))
            out.append(f"* `{spelled(v)}` without {words}: {v.reason}")
    reasons = in_order(v.reason for v in variants if not v.supported)
    if reasons:
        out.append("\nRefused:")
        for reason in reasons:
            names = in_order(f"`{spelled(v)}`" for v in variants
                             if not v.supported and v.reason == reason)
            out.append(f"* {reason}:\n" + wrap(names, indent="  "))
    return out


def wrap(names, width=78, indent=""):
    lines = [indent]
    for i, name in enumerate(names):
        word = name + ("," if i + 1 < len(names) else "")
        if lines[-1].strip() and len(lines[-1]) + 1 + len(word) > width:
            lines.append(indent)
        lines[-1] += (" " if lines[-1].strip() else "") + word
    return "\n".join(lines)
