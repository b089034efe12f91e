"""The targets of the build as the CMakeLists.txt files write them down.

Read as text, so that a check needs no configured build tree and sees every
preset's targets at once. What is read: pos_library, pos_executable,
pos_proto_library, add_library and target_link_libraries.
"""
import pathlib
import re

_COMMAND = re.compile(
    r"^\s*(pos_library|pos_executable|pos_proto_library|add_library|"
    r"target_link_libraries)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)",
    re.M)
_KEYWORDS = {"PUBLIC", "PRIVATE", "INTERFACE", "STATIC", "SHARED", "OBJECT",
             "GRPC"}


class Target:
    def __init__(self, name, directory):
        self.name = name
        self.directory = directory  # relative to the root, with slashes
        self.sources = set()        # relative to the root
        self.links = set()          # names, the project's and others'


def _add_sources(target, words):
    for word in words:
        if "$" not in word:
            target.sources.add(f"{target.directory}/{word}")


def read(root, tops):
    """name -> Target, of all CMakeLists.txt below the directories `tops`."""
    targets = {}
    for top in tops:
        for path in sorted(pathlib.Path(root, top).rglob("CMakeLists.txt")):
            directory = path.parent.relative_to(root).as_posix()
            text = re.sub(r"#.*", "", path.read_text())
            for command, arguments in _COMMAND.findall(text):
                words = arguments.split()
                if not words or "$" in words[0]:
                    continue
                target = targets.setdefault(words[0],
                                            Target(words[0], directory))
                words = [w for w in words[1:] if w not in _KEYWORDS]
                if command == "target_link_libraries":
                    target.links.update(words)
                elif command == "add_library":
                    _add_sources(target, words)
                else:
                    at = words.index("DEPS") if "DEPS" in words else len(words)
                    target.links.update(words[at + 1:])
                    _add_sources(target, [w for w in words[:at] if w != "SRCS"])
    return targets


def closure(targets, name):
    """What linking `name` brings along, itself included."""
    seen, todo = set(), [name]
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        if at in targets:
            todo.extend(targets[at].links)
    return seen


def owners(targets, path):
    """Targets that a source or header belongs to: those that list it or its
    .cc or .proto; else all of the nearest directory that has any."""
    stem = re.sub(r"\.(grpc\.)?pb\.h$|\.\w+$", "", path)
    exact = [t for t in targets.values()
             if any(re.sub(r"\.\w+$", "", s) == stem for s in t.sources)]
    if exact:
        return exact
    directory = pathlib.PurePosixPath(path).parent
    while directory.as_posix() != ".":
        near = [t for t in targets.values()
                if t.directory == directory.as_posix()]
        if near:
            return near
        directory = directory.parent
    return []
