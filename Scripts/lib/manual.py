"""Manual pages made of what the command says of itself.

    varve --experimental-dump-help | python3 manual.py VERSION DIRECTORY

Writes varve.1 (of varve-containerd: varve-containerd.8) and a page for each command into DIRECTORY, and prints their names. A group
(varve store) has a page with all of its commands, and each of these one of its own. The same command gives the same bytes.
"""

import json
import re
import sys

# What the page of each command says; varve.1 has all of it.
EXIT_STATUS = r"""
.SH EXIT STATUS
0 if it did what it was asked, 2 for wrong usage, 130 if it was interrupted and has cleaned up, else one of the numbers that
.BR varve (1)
lists, by what kept it from that.
"""

# Those of a command's own, by its words.
STATUS_OF = {
    "run": {"N": "Any other: that of the command that it ran."},
    "store check": {"1": "Something is wrong with the store, still."},
    "store gc": {"7": "Less is free than was asked for, and nothing else can be deleted."},
    "store resize": {"7": "What is in the store does not fit."},
    "store destroy": {"1": "Something of the store is in use, or is not the store's."},
    "containerd forget": {"1": "A daemon serves it, or a snapshot is mounted."},
}

COMMON = r"""
.SH ENVIRONMENT
.TP
.B VARVE_STORE
Where the store is, unless
.B \-\-store
says it.
.PP
.BR varve (1)
has the others.
.SH FILES
.TP
.IR ~/.config/varve/config.toml ", " /etc/varve/config.toml
The configuration.
.TP
.I /var/lib/varve
The store, where nothing else names one.
"""

# What no command's own help holds; it goes into varve.1.
CONCLUSION = r"""
.SH MESSAGES
Standard error gets messages, as
.B varve: LEVEL: MESSAGE
or, for an error, as one sentence. Where it leads to the journal of systemd, each line has its level there.
.PP
With
.B \-\-log\-format json
it holds an object on each line:
.B time
(RFC 3339, UTC),
.B level
.RB ( error ", " warning ", " notice ", " info ", " debug ),
.BR msg ,
and what else is known. An error also has
.BR code ", " subject ", " reason ", " remedy
and
.BR exitCode .
Progress is a message of level
.B info
each second, where
.B \-\-log info
asks for that level.
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
Failed.
.TP
.B 2
Wrong usage; the message says the right one.
.TP
.B 3
The input (image, layer, stream) is not valid, or its digest does not match.
.TP
.B 4
Not found: image, tag, chain, snapshot, bundle, store.
.TP
.B 5
This host cannot do it: not btrfs, not root, kernel too old.
.TP
.B 6
A hook failed.
.TP
.B 7
No space left.
.TP
.B 130
Interrupted, and cleaned up.
.PP
.B varve run
passes on the status of the command that it ran.
.SH ENVIRONMENT
.TP
.B VARVE_STORE
Where the store is, unless
.B \-\-store
says it.
.TP
.B VARVE_RUNTIME
The program that runs commands in bundles, crun or runc.
.TP
.B VARVE_HOOKS
The file that names hooks, instead of
.I hooks.toml
in the directory of the configuration.
.TP
.B SOURCE_DATE_EPOCH
Seconds since 1970: nothing in an image that is made bears a later time, and it is made at that time.
.TP
.B XDG_CONFIG_HOME
Where the directory
.I varve
with the configuration is;
.I ~/.config
by default.
.SH FILES
.TP
.IR ~/.config/varve/config.toml ", " /etc/varve/config.toml
The configuration, of a user and of the host; the first comes before the second.
.B store = \(dqPATH\(dq
names the store, and the table
.B [gc]
says what
.B varve store gc \-\-policy
keeps:
.BR older\-than ", " keep\-images ", " free .
.TP
.I /etc/systemd/system/*.mount
What
.B varve store init \-\-at\-boot
makes, and
.B varve store unmount \-\-forget
takes away.
.TP
.I /var/lib/varve
The store, where nothing else names one.
"""


DAEMON_DESCRIPTION = r"""
containerd reaches it as two proxy plugins, which its configuration names; examples for containerd 1.7 and 2 are in
.IR /usr/share/doc/varve\-containerd/examples .
Layers and the trees of containers lie in the store as btrfs snapshots, which the command
.BR varve (1)
shares.
.PP
With systemd,
.B varve\-containerd.socket
listens, and starts
.B varve\-containerd.service
at the first call:
.PP
.RS 4
.nf
varve store init
systemctl enable \-\-now varve\-containerd.socket
.fi
.RE
"""

DAEMON_CONCLUSION = r"""
.SH EXIT STATUS
.TP
.B 0
It was asked to end (SIGTERM, SIGINT), and all calls were answered.
.TP
.B 1
It cannot serve the store; standard error says why.
.SH FILES
.TP
.I /etc/varve\-containerd/config.toml
What the options say, as
.BR address ", " root ", " id ", " containerd ", " log\-level
and
.BR memory ,
the MiB for layers that are inflated. Options come first.
.TP
.I /run/varve\-containerd/varve\-containerd.sock
The socket.
.TP
.I /var/lib/varve
The store.
.SH SEE ALSO
\fBvarve\fR(1), \fBvarve\-containerd\fR(1), \fBcontainerd\fR(8)
"""


def text(plain):
    """Text for troff: what it would take for its own is escaped, also at the start of a line."""
    escaped = plain.replace("\\", r"\e").replace("-", r"\-").replace("^", r"\(ha").replace("~", r"\(ti")
    return re.sub(r"(?m)^(?=[.'])", r"\\&", escaped.replace("'", r"\(aq").replace("`", r"\(ga"))


def paragraphs(discussion):
    """Paragraphs; lines that are indented stand as they are."""
    out = []
    for block in re.split(r"\n[ \t]*\n", discussion.strip("\n")):
        if all(line.startswith("  ") for line in block.split("\n")):
            out += [".PP", ".RS 4", ".nf", *(text(line.strip()) for line in block.split("\n")), ".fi", ".RE"]
        else:
            out += [".PP", *text(block).split("\n")]
    # The first follows its heading at once.
    return out[1:] if out and out[0] == ".PP" and not out[1].startswith(".RS") else out


def spelled(argument):
    """Each name of an option or a flag, as it is typed."""
    names = sorted(argument["names"], key=lambda name: name["kind"] == "long")
    return [("--" if name["kind"] == "long" else "-") + name["name"] for name in names]


def shown(argument):
    return argument.get("shouldDisplay", True)


def is_own(argument):
    """Help and version are every command's."""
    names = [name["name"] for name in argument.get("names", [])]
    return shown(argument) and "help" not in names and "version" not in names


def synopsis(words, command):
    parts = []
    for argument in filter(is_own, command.get("arguments", [])):
        value = r"\fI" + text(argument["valueName"]) + r"\fR"
        if argument["kind"] == "positional":
            part = value
        else:
            names = spelled(argument)
            part = r"\fB" + text(names[-1]) + r"\fR" + ("" if argument["kind"] == "flag" else " " + value)
        if argument["isOptional"]:
            part = "[" + part + "]"
        if argument["isRepeating"]:
            part += r" \&..."
        parts.append(part)
    if command.get("subcommands"):
        parts.append(r"\fIcommand\fR")
    return [".HP", r"\fB" + text(" ".join(words)) + r"\fR", *parts]


def options(command, wanted=is_own):
    out = []
    for argument in filter(wanted, command.get("arguments", [])):
        value = r"\fI" + text(argument["valueName"]) + r"\fR"
        if argument["kind"] == "positional":
            head = value
        else:
            head = ", ".join(r"\fB" + text(name) + r"\fR" for name in spelled(argument))
            if argument["kind"] == "option":
                head += " " + value
        words = [argument.get("abstract", ""), argument.get("discussion", "")]
        if values := argument.get("allValues"):
            words.append("One of " + ", ".join(values) + ".")
        if default := argument.get("defaultValue"):
            words.append("By default " + default + ".")
        out += [".TP", head, *text(" ".join(filter(None, words)) or "").split("\n")]
    return out


def page(words, version, command, body, section=1):
    title = "-".join(words)
    aliases = command.get("aliases") or []
    names = ", ".join([title] + ["-".join(words[:-1] + [alias]) for alias in aliases])
    head = [
        r".\" Made of the command's own help.", f'.TH {title.upper()} {section} "" "{version}" "Varve"',
        ".SH NAME", text(names) + r" \- " + text(command["abstract"].rstrip(".")),
    ]
    return "\n".join(head + body).replace("\n\n", "\n") + "\n"


def split_examples(discussion):
    """A command's text, and its examples, which have a section."""
    before, _, after = discussion.partition("\n\nExamples:\n\n")
    if not after and discussion.startswith("Examples:\n\n"):
        before, after = "", discussion.removeprefix("Examples:\n\n")
    lines = after.split("\n")
    end = next((place for place, line in enumerate(lines) if line and not line.startswith("  ")), len(lines))
    return "\n\n".join(filter(None, [before, "\n".join(lines[end:]).strip("\n")])), "\n".join(lines[:end]).strip("\n")


def leaf_body(words, command):
    """What is said of a command that has no others below it."""
    text_alone, examples = split_examples(command.get("discussion", ""))
    body = [".SH DESCRIPTION"]
    body += paragraphs(text_alone) if text_alone else [text(command["abstract"])]
    if own := options(command):
        body += [".SH OPTIONS", *own]
    body += [EXIT_STATUS.strip("\n")]
    for code, meaning in STATUS_OF.get(" ".join(words[1:]), {}).items():
        body += [".TP", f".B {code}", text(meaning)]
    body += [COMMON.strip("\n")]
    if examples:
        body += [".SH EXAMPLES", *paragraphs(examples)[1:]]
    return body


def command_pages(words, version, command):
    """The page of a command, and of those below it: (name, text)."""
    nested = [each for each in command.get("subcommands", [])
              if each["commandName"] != "help" and each.get("shouldDisplay", True)]
    body = [".SH SYNOPSIS", ".nh", ".ad l"]
    for each in nested:
        body += synopsis(words + [each["commandName"]], each)
    if not nested:
        body += synopsis(words, command)
    body += [".ad b", ".hy"]
    if not nested:
        body += leaf_body(words, command)
        body += [".SH SEE ALSO", r"\fBvarve\fR(1), for options, environment and exit status that all commands share"]
        return [("-".join(words), page(words, version, command, body))]
    if discussion := command.get("discussion"):
        body += [".SH DESCRIPTION", *paragraphs(discussion)]
    if own := options(command):
        body += [".SH OPTIONS", *own]
    body += [".SH COMMANDS"]
    pages = []
    for each in nested:
        below = words + [each["commandName"]]
        names = [each["commandName"]] + (each.get("aliases") or [])
        body += [".TP", r"\fB" + text("-".join(below)) + r"\fR(1)", text(each["abstract"])]
        if len(names) > 1:
            body += ["Also: " + text(", ".join(names[1:])) + "."]
        pages += command_pages(below, version, each)
    body += [".SH SEE ALSO", r"\fBvarve\fR(1), for options, environment and exit status that all commands share"]
    return [("-".join(words), page(words, version, command, body)), *pages]


def daemon_page(version, command):
    """A program with no commands: a daemon's page."""
    body = [".SH SYNOPSIS", ".nh", ".ad l", *synopsis([command["commandName"]], command), ".ad b", ".hy", ".SH DESCRIPTION",
            text(command["abstract"]), DAEMON_DESCRIPTION.strip("\n"), ".SH OPTIONS",
            *options(command, shown), DAEMON_CONCLUSION.strip("\n")]
    return page([command["commandName"]], version, command, body, section=8)


def main_page(version, command, commands):
    name = command["commandName"]
    body = [".SH SYNOPSIS", *synopsis([name], command)[0:2], r"[\fIoptions\fR] \fIcommand\fR ..."]
    # The exit codes have a section.
    discussion = re.sub(r"(?s)\n\nExit codes:.*", "", command.get("discussion", ""))
    body += [".SH DESCRIPTION", *paragraphs(discussion), ".SH COMMANDS"]
    for each in commands:
        body += [".TP", r"\fB" + text(f"{name}-{each['commandName']}") + r"\fR(1)", text(each["abstract"])]
    body += [".SH OPTIONS", *options(command, shown)[0:], CONCLUSION.strip("\n")]
    return page([name], version, command, body)


def main():
    version, directory = sys.argv[1:]
    root = json.load(sys.stdin)["command"]
    if all(each["commandName"] == "help" for each in root.get("subcommands", [])):
        name = f"{root['commandName']}.8"
        with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
            file.write(daemon_page(version, root))
        print(name)
        return
    commands = [
        each for each in root["subcommands"] if each["commandName"] != "help" and each.get("shouldDisplay", True)]
    pages = {root["commandName"]: main_page(version, root, commands)}
    for each in commands:
        words = [root["commandName"], each["commandName"]]
        pages |= dict(command_pages(words, version, each))
    for name, contents in sorted(pages.items()):
        with open(f"{directory}/{name}.1", "w", encoding="utf-8") as file:
            file.write(contents)
        print(f"{name}.1")


main()
