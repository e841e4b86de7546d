/// Commands that are given to umoci and to varve alike. `@` stands for the side's own directory, `%` for that of the
/// files both take.
struct UmociCase: Sendable, CustomStringConvertible {
    var name: String
    var steps: [[String]]
    /// Times are given in all commands, so that they are compared too.
    var comparesTimes = false
    private var isContinued = false
    var description: String { name }

    init(_ name: String, _ steps: [String]..., comparesTimes: Bool = false) {
        self.name = name
        self.steps = steps
        self.comparesTimes = comparesTimes
    }
}

extension UmociCase {
    /// With paths relative to the side.
    var sequence: UmociSequence {
        func plain(_ word: String) -> String {
            for (mark, path) in [("@", ""), ("%", "files/")] {
                if word.hasPrefix(mark) { return path + word.dropFirst() }
                let parts = word.split(separator: "=", maxSplits: 1)
                if parts.count == 2, parts[1].hasPrefix(mark) {
                    return "\(parts[0])=\(path)\(parts[1].dropFirst())"
                }
            }
            return word
        }
        var all: [UmociSequence.Step] = steps.map { .command($0.map(plain)) }
        if isContinued {
            let times = ["--history.created", "2021-06-07T08:09:10Z"]
            all += [
                .swap, .command(["insert", "--image=L:base"] + times + ["files/file", "/next"]),
                .command(["config", "--image=L:base", "--tag=next", "--author=next"] + times),
                .command(["ls", "--layout=L"]),
            ]
        }
        return UmociSequence(name: name, steps: all, comparesTimes: comparesTimes)
    }

    private static func config(_ name: String, _ flags: String..., then more: [String]? = nil) -> UmociCase {
        var result = UmociCase(name, ["config", "--image", "@L:full"] + flags)
        if let more { result.steps.append(["config", "--image", "@L:full"] + more) }
        return result
    }

    private static func insert(_ name: String, _ words: String...) -> UmociCase {
        UmociCase(name, ["insert", "--image", "@L:base"] + words)
    }

    private static func fails(_ name: String, _ words: String...) -> UmociCase { UmociCase(name, words) }

    static let all: [UmociCase] = (configuration + layers + tags).map(\.continued) + mistakes

    /// With more work on what was made, by the other tool.
    private var continued: UmociCase {
        var result = self
        result.isContinued = true
        return result
    }

    static let configuration: [UmociCase] = [
        config("a user", "--config.user", "web:www"),
        config("no user", "--config.user", ""),
        config("a user by an equals sign", "--config.user=7:8"),
        config("one dash", "-config.user", "x", "-author=me"),
        config("ports are added", "--config.exposedports", "80/tcp", "--config.exposedports", "53/udp"),
        config("a port twice", "--config.exposedports", "80/tcp", then: ["--config.exposedports", "80/tcp"]),
        config("a variable in its place", "--config.env", "A=2"),
        config(
            "variables of one command", "--config.env", "B=1", "--config.env", "C=2", "--config.env", "B=3"),
        config("a variable with equals signs", "--config.env", "Z=a=b="),
        config("an empty variable", "--config.env", "A="),
        config("entrypoint is replaced", "--config.entrypoint", "/bin/x", "--config.entrypoint", "-y"),
        config("an empty word", "--config.entrypoint", ""),
        config("an empty word among others", "--config.cmd", "a", "--config.cmd", "", "--config.cmd=b"),
        config("an empty word first", "--config.cmd=", "--config.entrypoint", "x", "--config.cmd", "b"),
        config("two empty words", "--config.cmd=", "--config.cmd", ""),
        config("an empty variable first", "--config.env", "", "--config.env", "A=3"),
        config("an empty word by an equals sign", "--config.entrypoint=", "--author=x"),
        config("cmd is replaced", "--config.cmd", "a b", "--config.cmd", "c,d"),
        config("cmd and entrypoint", "--config.cmd", "x", "--config.entrypoint", "y"),
        config("words like flags", "--config.cmd", "--config.user", "--config.cmd", "--"),
        config("volumes are added", "--config.volume", "/v", "--config.volume", "/data"),
        config("labels", "--config.label", "k=v", "--config.label", "com.example=a=b"),
        config("a label that is there", "--config.label", "who=other"),
        config("a working directory", "--config.workingdir", "/srv/x"),
        config("no working directory", "--config.workingdir", ""),
        config("a stop signal", "--config.stopsignal", "SIGUSR2"),
        config("an author", "--author", "Me <me@example.org>"),
        config("no author", "--author", ""),
        config("a platform", "--architecture", "arm64", "--os", "linux"),
        config("two names of one flag", "--os", "linux", "--platform.os", "linux"),
        config("annotations", "--manifest.annotation", "a=b", "--manifest.annotation", "c=d=e"),
        config(
            "an annotation again", "--manifest.annotation", "a=b", then: ["--manifest.annotation", "a=c"]),
        config("clear labels", "--clear", "config.labels"),
        config("clear, then set", "--clear=config.env", "--config.env", "NEW=1"),
        config("clear ports and volumes", "--clear", "config.exposedports", "--clear", "config.volume"),
        config("clear the commands", "--clear", "config.entrypoint", "--clear", "config.cmd"),
        config(
            "clear annotations", "--manifest.annotation", "a=b",
            then: ["--clear", "manifest.annotations", "--manifest.annotation", "c=d"]),
        config("another tag", "--tag", "other", "--author", "x"),
        config("a tag that is there", "--tag", "base", "--author", "x"),
        config("nothing at all"),
        config("no history", "--no-history", "--author", "x"),
        config("a toggle that is off", "--no-history=false", "--author", "x"),
        config(
            "history", "--history.author", "h", "--history.comment", "why so", "--history.created_by", "me"),
        config("the author of the history is the new one", "--author", "new", then: ["--config.user", "u"]),
        UmociCase(
            "times",
            [
                "config", "--image", "@L:bare", "--created", "2020-01-02T03:04:05Z", "--history.created",
                "2021-06-07T08:09:10Z",
            ], comparesTimes: true),
        UmociCase(
            "times with a fraction",
            [
                "config", "--image", "@L:bare", "--created", "2020-01-02T03:04:05.25Z", "--history.created",
                "1999-12-31T23:59:59.000000001Z",
            ], comparesTimes: true),
    ]

    /// Into an image without an author: umoci 0.4.7 forgets to name it where its manual page says that it does.
    static let layers: [UmociCase] = [
        insert("a file", "%file", "/usr/bin/tool"),
        insert("a file to a relative place", "%file", "etc/file"),
        insert("a place with dots", "%file", "/a/./b/../c"),
        insert("a place above the root", "%file", "../../x"),
        insert("an executable with a set-ID bit", "%setid", "/bin/setid"),
        insert("a file with attributes", "%attributes", "/bin/attributes"),
        insert("a link", "%tree/link", "/l"),
        insert("a fifo", "%tree/fifo", "/run/fifo"),
        insert("a directory", "%tree", "/opt/tree"),
        insert("a directory into the root", "%tree", "/"),
        insert("a directory with a slash", "%tree/", "/srv/"),
        insert("an opaque directory", "--opaque", "%tree", "/etc"),
        insert("an opaque root", "--opaque", "%tree", "/"),
        insert("an empty directory", "%empty", "/var/empty"),
        insert("a deletion", "--whiteout", "/etc/conf"),
        insert("a deletion deep below", "--whiteout", "etc/sub/../sub/deep"),
        insert("a deletion of what is not there", "--whiteout", "/none"),
        insert("flags behind", "%file", "/x", "--tag", "behind", "--no-history"),
        insert("another tag", "--tag", "inserted", "%file", "/x"),
        insert("history of a layer", "--history.author", "a", "--history.comment", "c", "%file", "/x"),
        insert("mapped owners", "--uid-map", "5:0:1", "--gid-map", "6:0:1", "%tree", "/m"),
        insert("a map without a size", "--uid-map", "5:0", "--gid-map", "0:0", "%file", "/m"),
        insert("rootless", "--rootless", "%file", "/r"),
        UmociCase(
            "layer upon layer", ["insert", "--image", "@L:base", "%tree", "/opt"],
            ["insert", "--image", "@L:base", "--whiteout", "/opt/dir"],
            ["insert", "--image", "@L:base", "--opaque", "%empty", "/opt"],
            ["config", "--image", "@L:base", "--config.user", "1"]),
        UmociCase("an archive", ["raw", "add-layer", "--image", "@L:base", "%archive.tar"]),
        UmociCase(
            "an archive under another tag",
            [
                "raw", "add-layer", "--image", "@L:base", "--tag", "raw", "--history.created_by", "x",
                "%archive.tar",
            ]),
        UmociCase(
            "an image from nothing", ["init", "--layout", "@N"], ["new", "--image", "@N:a"],
            ["insert", "--image", "@N:a", "%tree", "/"], ["config", "--image", "@N:a", "--config.cmd", "x"],
            ["stat", "--image", "@N:a", "--json"]),
    ]

    static let tags: [UmociCase] = [
        UmociCase("list", ["list", "--layout", "@L"], ["ls", "-layout=@L"]),
        UmociCase("a tag", ["tag", "--image", "@L:full", "more"], ["ls", "--layout", "@L"]),
        UmociCase("a tag before the flag", ["tag", "more", "--image", "@L:full"]),
        UmociCase("a tag over another", ["tag", "--image", "@L:full", "base"]),
        UmociCase("a tag with marks", ["tag", "--image", "@L:full", "a.b-c_d+e"]),
        UmociCase("the last flag counts", ["tag", "--image", "@L:none", "--image", "@L:full", "x"]),
        UmociCase(
            "remove", ["remove", "--image", "@L:full"], ["ls", "--layout", "@L"], ["gc", "--layout", "@L"]),
        UmociCase("remove what is not there", ["rm", "--image", "@L:none"]),
        UmociCase("collect", ["gc", "--layout", "@L"], ["gc", "--layout", "@L"]),
        UmociCase("new over an old tag", ["new", "--image", "@L:full"], ["gc", "--layout", "@L"]),
        UmociCase("the tag latest", ["new", "--image", "@L"], ["stat", "--image", "@L", "--json"]),
        UmociCase("stat", ["stat", "--image", "@L:full", "--json"], ["stat", "--json", "--image=@L:bare"]),
        UmociCase(
            "a layout in new directories", ["init", "--layout", "@a/b/c"], ["ls", "--layout", "@a/b/c"]),
        UmociCase("words before the command", ["--log", "error", "ls", "--layout", "@L"]),
    ]

    static let mistakes: [UmociCase] = [
        fails("no flag", "init"), fails("no image", "new"), fails("no layout", "ls"),
        fails("no layout to collect", "gc"),
        fails("no value", "init", "--layout"), fails("a layout that is there", "init", "--layout", "@L"),
        fails("an empty directory for a layout", "init", "--layout", "@empty"),
        fails("an argument too many", "new", "--image", "@L:x", "more"),
        fails("an unknown flag", "ls", "--layout", "@L", "--bogus"),
        fails("a global flag behind", "ls", "--layout", "@L", "--verbose"),
        fails("an unknown global flag", "--bogus", "ls", "--layout", "@L"),
        fails("two levels", "--verbose", "--log=info", "ls", "--layout", "@L"),
        fails("an unknown level", "--log=loud", "ls", "--layout", "@L"),
        fails("an unknown command", "frobnicate"), fails("an unknown raw command", "raw", "frobnicate"),
        fails("help of an unknown raw command", "raw", "help", "frobnicate"),
        fails("no such layout", "ls", "--layout", "@none"),
        fails("no such tag", "stat", "--image", "@L:none"),
        fails("a tag of nothing", "tag", "--image", "@L:none", "x"),
        fails("no new tag", "tag", "--image", "@L:full"),
        fails("not a tag", "tag", "--image", "@L:full", "a b"),
        fails("an empty tag", "stat", "--image", "@L:"),
        fails("a variable without a value", "config", "--image", "@L:full", "--config.env", "A"),
        fails("a variable without a name", "config", "--image", "@L:full", "--config.env", "=A"),
        fails("a label without a value", "config", "--image", "@L:full", "--config.label", "A"),
        fails("not a time", "config", "--image", "@L:full", "--created", "yesterday"),
        fails(
            "a time without a zone", "config", "--image", "@L:full", "--history.created",
            "2020-01-02T03:04:05"),
        fails("clear what there is not", "config", "--image", "@L:full", "--clear", "config.user"),
        fails("history and none", "config", "--image", "@L:full", "--no-history", "--history.author", "x"),
        fails("not a new tag", "config", "--image", "@L:full", "--tag", "a b"),
        fails("config of nothing", "config", "--image", "@L:none"),
        fails("insert nothing", "insert", "--image", "@L:full"),
        fails("insert without a place", "insert", "--image", "@L:full", "%file"),
        fails("insert what is not there", "insert", "--image", "@L:full", "%none", "/x"),
        fails("delete two", "insert", "--image", "@L:full", "--whiteout", "a", "b"),
        fails("a map that is none", "insert", "--image", "@L:full", "--uid-map", "x", "%file", "/x"),
        fails("an owner without a map", "insert", "--image", "@L:full", "--uid-map", "0:7:1", "%file", "/x"),
        fails("no archive", "raw", "add-layer", "--image", "@L:full"),
        fails("an archive that is not there", "raw", "add-layer", "--image", "@L:full", "%none"),
        fails("no bundle", "unpack", "--image", "@L:full"),
        fails("repack without one", "repack", "--image", "@L:full"),
        fails("repack of nothing", "repack", "--image", "@L:full", "@none"),
        fails("no root file system", "raw", "unpack", "--image", "@L:full"),
        fails("no file", "raw", "runtime-config", "--image", "@L:full"),
    ]
}
