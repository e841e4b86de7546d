import TestSupport
import VarveArchive
import VarveSystem

/// An input that can be made of any size: the time that its target takes must be in proportion to that.
package struct GrowingInput: Sendable, CustomStringConvertible {
    package let target: FuzzTarget
    package let description: String
    /// So many that the target takes some milliseconds.
    package let count: Int
    /// Whether the target takes it: else it reads it to the end, and refuses what it says.
    package private(set) var isTaken = true
    /// An input with so many of them.
    package let make: @Sendable (_ count: Int) throws -> [UInt8]

    private init(
        _ target: FuzzTarget, _ what: String, _ count: Int,
        _ make: @escaping @Sendable (Int) throws -> [UInt8]
    ) {
        self.target = target
        description = "\(target): \(what)"
        self.count = count
        self.make = make
    }

    private init(
        _ target: FuzzTarget, _ what: String, _ count: Int, text: @escaping @Sendable (Int) -> String
    ) {
        self.init(target, what, count) { Array(text($0).utf8) }
    }

    private var refused: GrowingInput {
        var input = self
        input.isTaken = false
        return input
    }

    private static func list(_ count: Int, _ separator: String = ",", _ item: (Int) -> String) -> String {
        (0..<count).map(item).joined(separator: separator)
    }

    private static func sha(_ number: Int) -> String {
        "sha256:" + String(repeating: "0", count: 64 - String(number).utf8.count) + String(number)
    }

    private static func descriptor(_ number: Int) -> String {
        #"{"mediaType":"a/b","digest":"\#(sha(number))","size":\#(number),"annotations":{"a key that is long":"v"}}"#
    }

    private static func configuration(_ members: String, _ more: String = "") -> String {
        #"{"os":"linux","config":{\#(members)},"rootfs":{"type":"layers","diff_ids":[]}\#(more)}"#
    }

    private static let documents: [GrowingInput] = [
        GrowingInput(.documents, "keys", 300, text: { "{" + list($0) { #""key \#($0)":\#($0)"# } + "}" }),
        GrowingInput(
            .documents, "nested arrays", 2,
            text: {
                "["
                    + list($0) { _ in String(repeating: "[", count: 300) + String(repeating: "]", count: 300)
                    } + "]"
            }),
        GrowingInput(
            .documents, "escapes", 300, text: { "\"" + list($0, "") { _ in #"\u00e9\n\ud83d\ude00"# } + "\"" }
        ),
        GrowingInput(.documents, "digits", 2_000, text: { "1" + String(repeating: "0", count: $0) }),
        GrowingInput(.documents, "blanks", 5_000, text: { "[" + String(repeating: " ", count: $0) + "]" }),
        GrowingInput(
            .documents, "entries of an index", 100,
            text: { #"{"schemaVersion":2,"manifests":[\#(list($0) { descriptor($0) })]}"# }),
        GrowingInput(
            .documents, "layers of a manifest", 100,
            text: {
                #"{"schemaVersion":2,"config":\#(descriptor(0)),"layers":[\#(list($0) { descriptor($0) })]}"#
            }),
        GrowingInput(
            .documents, "variables", 100, text: { configuration(#""Env":[\#(list($0) { "\"N\($0)=v\"" })]"#) }
        ),
        GrowingInput(
            .documents, "labels", 100,
            text: { configuration(#""Labels":{\#(list($0) { "\"n\($0)\":\"v\"" })}"#) }),
        GrowingInput(
            .documents, "volumes", 100,
            text: { configuration(#""Volumes":{\#(list($0) { "\"/n\($0)/..\":{}" })}"#) }),
        GrowingInput(
            .documents, "parts of a volume's path", 500,
            text: { configuration(#""Volumes":{"/\#(list($0, "/") { "n\($0)" })/..":{}}"#) }),
        GrowingInput(
            .documents, "ports", 100,
            text: { configuration(#""ExposedPorts":{\#(list($0) { "\"\($0)/tcp\":{}" })}"#) }),
        GrowingInput(
            .documents, "history", 100,
            text: {
                configuration(
                    "", #","history":[\#(list($0) { #"{"created_by":"\#($0)","empty_layer":true}"# })]"#)
            }),
        GrowingInput(
            .documents, "DiffIDs", 100,
            text: {
                #"{"os":"linux","rootfs":{"type":"layers","diff_ids":[\#(list($0) { "\"\(sha($0))\"" })]}}"#
            }),
        GrowingInput(
            // Eight times as many are still no more than the kernel takes.
            .bundles, "mappings", 40,
            text: {
                #"{"umoci_version":"2","from_descriptor_path":{"descriptor_walk":[\#(descriptor(0))]},"map_options":{"#
                    + #""uid_mappings":[\#(list($0) { #"{"containerID":\#($0),"hostID":\#($0),"size":1}"# })],"#
                    + #""gid_mappings":[],"rootless":false}}"#
            }),
        GrowingInput(
            .bundles, "descriptors", 100,
            text: {
                #"{"umoci_version":"2","from_descriptor_path":{"descriptor_walk":[\#(list($0) { descriptor($0) })]},"#
                    + #""map_options":{"uid_mappings":null,"gid_mappings":null,"rootless":false}}"#
            }),
        GrowingInput(
            .hooks, "changes", 100,
            text: {
                "\u{0}"
                    + #"{"changes":[\#(list($0) { #"{"change":"deleted","type":"file","path":"d/\#($0)"}"# })]}"#
            }),
    ]

    private static let texts: [GrowingInput] = [
        GrowingInput(
            .configuration, "words of a command", 200,
            text: {
                #"[hooks."unpack.ociv1.bundle.post-unpack"]"# + "\ncommand = ["
                    + list($0) { "\"/word\($0)\"" } + "]\n"
            }),
        // What is no hook is refused when all of it has been read, written and read again.
        GrowingInput(.configuration, "keys", 200, text: { "[x]\n" + list($0, "") { "key\($0) = 1\n" } })
            .refused,
        GrowingInput(.configuration, "tables", 200, text: { list($0, "") { "[table\($0)]\na = 1\n" } })
            .refused,
        GrowingInput(.configuration, "dotted keys", 200, text: { list($0, "") { "a.b.key\($0) = 1\n" } })
            .refused,
        GrowingInput(
            .mtree, "files of a directory", 200,
            text: {
                "#mtree\n/set type=file uid=0 gid=0 nlink=1 mode=0644\n. type=dir mode=0755 time=1.0\n"
                    + list($0, "") { "    f\($0) size=1 tar_time=1.0 sha256digest=\(sha($0).dropFirst(7))\n" }
                    + "..\n"
            }),
        GrowingInput(
            .mtree, "attributes", 100,
            text: {
                "#mtree\n. type=dir mode=0755 uid=0 gid=0 nlink=1 time=1.0 "
                    + list($0, " ") { "xattr.user.a\($0)=dg==" } + "\n..\n"
            }),
        GrowingInput(
            .mtree, "continued lines", 300,
            text: {
                "#mtree\n. type=dir mode=0755 uid=0 gid=0 nlink=1 time=1.0" + list($0, "") { _ in " \\\n" }
                    + "\n..\n"
            }),
    ]

    private static let archives: [GrowingInput] = [
        GrowingInput(.tar, "entries", 50) { count in
            [0x80] + (0..<count).flatMap { tarEntry("f\($0)", "0", "x") } + endOfTar
        },
        GrowingInput(.tar, "attributes of an entry", 50) { count in
            [0x00] + paxHeader((0..<count).map { ("SCHILY.xattr.user.a\($0)", "v") }) + tarEntry("a")
                + endOfTar
        },
        GrowingInput(.tar, "records of a global header", 50) { count in
            [0x00] + paxHeader((0..<count).map { ("comment", "v\($0)") }, "g") + tarEntry("a") + endOfTar
        },
        GrowingInput(.gzip, "members", 200) { count in
            [0x01] + (0..<count).flatMap { _ in storedMember([1], flags: 0x1e) }
        },
        GrowingInput(.gzip, "bytes of a name", 2_000) { count in
            var member = storedMember([1], flags: 0)
            member[3] = 0x08
            member.insert(contentsOf: [UInt8](repeating: 0x61, count: count) + [0], at: 10)
            return [0x01] + member
        },
        GrowingInput(.zstd, "frames that are skipped", 500) { count in
            [0x01] + (0..<count).flatMap { _ in [0x5a, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7] as [UInt8] }
        },
        GrowingInput(.stream, "commands", 2) { count in
            let everything = StreamBuilder.everything(version: 2)
            return [0x80] + (0..<count).flatMap { _ in everything }
        },
        GrowingInput(.apply, "files", 100) { count in
            archive((0..<count).map { tarEntry("d/f\($0)", "0", "x") })
        },
        GrowingInput(.apply, "links to one file", 50) { count in
            archive([tarEntry("d/f", "0", "x")] + (0..<count).map { tarEntry("d/l\($0)", "1", link: "d/f") })
        },
        GrowingInput(.apply, "files and opaque whiteouts", 50) { count in
            let opaque = tarEntry("d/.wh..wh..opq")
            return archive((0..<count).map { tarEntry("d/f\($0)", "0", "x") + opaque })
        },
        GrowingInput(.apply, "entries of one name", 100) { count in
            archive((0..<count).map { _ in tarEntry("d/f", "0", "x") })
        },
    ]

    private static func archive(_ entries: [[UInt8]]) -> [UInt8] {
        var bytes: [UInt8] = [0x01]
        for entry in entries { bytes += entry }
        return bytes + endOfTar
    }

    private static func accounts(_ name: String, _ passwd: String, _ group: String) -> [UInt8] {
        Array([Array(name.utf8), Array(passwd.utf8), Array(group.utf8)].joined(separator: [0xff]))
    }

    private static let groups: [GrowingInput] = [
        GrowingInput(.accounts, "users", 500) { count in
            let last = count - 1
            let users = list(count, "") { "n\($0):x:\($0):\($0)::/:\n" }
            let groups = list(count, "") { "g\($0):x:\($0):n\($0)\n" }
            return accounts("n\(last):g\(last)", users, groups)
        },
        GrowingInput(.accounts, "members of a group", 500) { count in
            let user = "root:x:0:0:r:/root:/bin/sh\n"
            let group = "g:x:1:" + list(count) { "n\($0)" } + "\n"
            return accounts("root", user, group)
        },
    ]

    private static func filter(_ filter: String, _ value: String) -> [UInt8] {
        Array([filter, "k", "a", value].map { Array($0.utf8) }.joined(separator: [0xff]))
    }

    private static let snapshots: [GrowingInput] = [
        GrowingInput(
            .snapshots, "labels", 100,
            text: {
                #"{"version":1,"key":"k","kind":"view","parent":"","created":[0,0],"updated":[0,0],"tree":1,"#
                    + #""labels":{\#(list($0) { "\"label\($0)\":\"v\"" })}}"#
            }),
        GrowingInput(
            .snapshots, "bytes of a key", 5_000,
            text: {
                #"{"version":1,"kind":"view","parent":"","created":[0,0],"updated":[0,0],"tree":1,"labels":{},"#
                    + #""key":"\#(String(repeating: "k", count: $0))"}"#
            }),
        GrowingInput(.filters, "selectors", 200) { filter(list($0) { "labels.a!=\($0)" }, "x") },
        GrowingInput(.filters, "parts of a field", 500) { filter(list($0, ".") { "f\($0)" }, "x") },
        GrowingInput(.filters, "escapes of a value", 500) {
            filter("name==\"" + list($0, "") { _ in "\\u00e9" } + "\"", "x")
        },
        GrowingInput(.filters, "bytes of a text that is searched", 1_000) {
            filter("labels.a~=(a*)*(b|c)*x$", String(repeating: "a", count: $0))
        },
        GrowingInput(.filters, "parts of an expression", 200) {
            filter("labels.a~=^" + list($0, "") { _ in "(a?)" } + "$", "aaaaaaaa")
        },
        GrowingInput(.filters, "ranges of a class", 500) {
            filter("labels.a~=[" + list($0, "") { _ in "0-9" } + "]", "x")
        },
        GrowingInput(.filters, "choices", 200) { filter("labels.a~=" + list($0, "|") { "w\($0)" }, "x") },
    ]

    package static let all = documents + texts + archives + groups + snapshots
}
