import Glibc
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// Room for sequences of one setting: a btrfs with a layout to begin with, files to put in, and a store.
struct UmociRoom: ~Copyable {
    let setting: UmociSetting
    let volume: LoopVolume
    private let release: String

    init(_ setting: UmociSetting) throws {
        let release = try setting.release.program()
        let made = try LoopVolume(size: 4 << 30, options: "user_subvol_rm_allowed")
        let user = OrdinaryUser.id
        try runSuccessfully([
            "/bin/sh", "-ec", Self.fixture, "sh", made.path.description, try builtProgram("varve"), release,
            setting.isRootless ? "\(user):\(user)" : "0:0",
        ])
        if setting.isBtrfs {
            let store = try Self.run(
                "varve", ["store", "init", "store"], in: ".", of: made.path, setting, variables: [])
            guard store.status == 0 else {
                throw TestSupportError("no store can be made: \(store.errorText)")
            }
        }
        self.setting = setting
        self.release = release
        volume = made
    }

    /// Files have times of whole seconds: umoci 0.4.7 rounds where 0.6 cuts off. What an ordinary user works with is its own.
    private static let fixture = """
        cd "$1"; cp "$2" varve; mkdir -p bin files/tree/dir/deeper files/empty start; ln -s ../varve bin/umoci; cd files
        echo hello > file; printf '#!' > setid; printf x > attributes
        setfattr -n user.test -v value attributes; ln file tree/dir/other; ln -s ../file tree/link; mkfifo tree/fifo
        echo deep > tree/dir/deeper/file; ln tree/dir/deeper/file tree/hard; chmod 1777 tree/dir
        mkdir -p base/etc/sub/deep base/data; echo conf > base/etc/conf; echo root:x:0:0::/root:/bin/sh > base/etc/passwd
        echo d > base/etc/sub/deep/d; ln base/etc/conf base/etc/link; tar --numeric-owner --owner=0 --group=0 -C base -cf archive.tar .
        chown -R "$4" .; [ "$4" != 0:0 ] || chown 7:8 tree/dir/deeper; chmod 4755 setid; find . -exec touch -h -d @1600000000 {} +
        cd ../start; umoci init --layout L; umoci new --image L:bare; rootless=; [ "$4" = 0:0 ] || rootless="--uid-map 0:${4%:*}:1 --gid-map 0:${4#*:}:1"
        umoci insert $rootless --image L:bare --tag base "$1/files/base" /
        umoci config --image L:base --tag full --config.env A=1 --config.label who=me --config.cmd sh --config.volume /data \\
            --config.exposedports 22/tcp --author first --config.workingdir /w
        mkdir empty; ln -s ../files files; cd ..; chown -R "$4" .
        """

    func run(_ program: String, _ words: [String], in directory: String, variables: [String]) throws
        -> CommandResult
    {
        try Self.run(program, words, in: directory, of: volume.path, setting, variables: variables)
    }

    /// Runs one command. An ordinary user sees the volume at a place of its own, as it may not search the directories
    /// above.
    private static func run(
        _ program: String, _ words: [String], in directory: String, of volume: BytePath,
        _ setting: UmociSetting,
        variables: [String]
    ) throws -> CommandResult {
        let path = volume.description
        var command =
            ["env", "-C", "\(path)/\(directory)", "HOME=/nonexistent", "VARVE_UMOCI_MTREE=1"] + variables
        if setting.isBtrfs { command.append("VARVE_STORE=\(setting.isRootless ? "/mnt" : path)/store") }
        let up = directory == "." ? "" : directory.split(separator: "/").map { _ in "../" }.joined()
        let called = program == "varve" || program == "bin/umoci" ? "./\(up)\(program)" : program
        guard setting.isRootless else { return try runCommand(command + [called] + words) }
        command[2] = "/mnt/\(directory)"
        let user = OrdinaryUser.id
        return try runCommand(
            [
                "unshare", "--mount", "sh", "-ec", "mount --bind \"$1\" /mnt; shift; exec \"$@\"", "sh", path,
                "setpriv",
                "--reuid=\(user)", "--regid=\(user)", "--clear-groups", "--inh-caps=-all", "--no-new-privs",
                "--",
            ] + command + [called] + words)
    }

    /// What went wrong between the two sides of a sequence; none if they are alike.
    func differences(_ sequence: UmociSequence, number: Int) throws -> [String] {
        let folder = "s\(number)"
        try runSuccessfully([
            "/bin/sh", "-ec",
            "cd \"$1\"; mkdir $2; cp -a start $2/0; cp -a start $2/1; cp -a --reflink=auto files $2/files; chown $3 $2",
            "sh",
            volume.path.description, folder,
            setting.isRootless ? "\(OrdinaryUser.id):\(OrdinaryUser.id)" : "0:0",
        ])
        defer { _ = try? runCommand(["rm", "-rf", "\(volume.path)/\(folder)"]) }
        var sides = UmociSides(
            self.setting, sequence, folder: folder, path: volume.path.appending(BytePath(folder)))
        for step in sequence.steps {
            switch step {
            case .swap: sides.isSwapped.toggle()
            case .edit(let bundle, let script):
                for side in 0...1 { try sides.edit(bundle, script, side) }
            case .command(let words):
                var results: [CommandResult] = []
                for side in 0...1 {
                    results.append(
                        try run(
                            sides.isOurs(side) ? "bin/umoci" : release, words, in: "\(folder)/\(side)",
                            variables: sides.variables))
                }
                try sides.compare(words, results)
            }
            if !sides.findings.isEmpty { return sides.findings.map { "\(step): \($0)" } }
        }
        try compareReaders(&sides, folder)
        return sides.findings
    }

    /// Both tools look at both layouts, unpack what is in them, and say the same.
    private func compareReaders(_ sides: inout UmociSides, _ folder: String) throws {
        let programs = [release, "bin/umoci"]
        for side in 0...1 {
            let tags = try sides.tags(side)
            var commands = [["ls", "--layout", "L"]]
            for tag in tags.suffix(2) {
                commands.append(["stat", "--json", "--image", "L:\(tag)"])
                if setting.release == .newer { commands.append(["stat", "--image", "L:\(tag)"]) }
            }
            for words in commands {
                let results = try programs.map {
                    try run($0, words, in: "\(folder)/\(side)", variables: sides.variables)
                }
                var texts = results.map(\.outputText)
                if setting.release == .installed, words[0] == "stat" {
                    texts = try results.map {
                        let history = try LayoutDocument($0.output)["history"] ?? .null
                        return history == .null ? "[]" : "\(history)"
                    }
                }
                if texts[0] != texts[1] || results[0].status != results[1].status {
                    sides.findings.append(
                        "\(words) of the layout of side \(side):\numoci (\(results[0].status)): \(texts[0])\(results[0].errorText)\nvarve (\(results[1].status)): \(texts[1])\(results[1].errorText)"
                    )
                }
            }
        }
        guard sides.findings.isEmpty, let tag = try sides.tags(0).last else { return }
        let rootless = setting.isRootless ? ["--rootless"] : []
        var trees: [(String, BytePath)] = []
        for side in 0...1 {
            for (number, program) in programs.enumerated() {
                let tree = "tree-\(number)"
                let result = try run(
                    program, ["raw", "unpack", "--image", "L:\(tag)"] + rootless + [tree],
                    in: "\(folder)/\(side)", variables: sides.variables)
                guard result.status == 0 else {
                    sides.findings.append(
                        "\(program) cannot unpack \(tag) of side \(side): \(result.errorText)")
                    continue
                }
                trees.append(
                    ("\(program) of side \(side)", sides.path.appending(BytePath("\(side)/\(tree)"))))
            }
        }
        for (name, tree) in trees.dropFirst() {
            for line in try UmociSides.differences(trees[0].1, tree) {
                sides.findings.append("the tree of \(tag) by \(name) is not that by \(trees[0].0): \(line)")
            }
        }
    }
}

/// The two sides of a sequence on its way.
struct UmociSides {
    let setting: UmociSetting
    let sequence: UmociSequence
    let folder: String
    let path: BytePath
    var isSwapped = false
    var findings: [String] = []
    /// Layers that a repack made: which names a tool packs besides those that changed is its own choice, and what they
    /// unpack to is compared.
    private var repacked: Set<String> = []

    init(_ setting: UmociSetting, _ sequence: UmociSequence, folder: String, path: BytePath) {
        (self.setting, self.sequence, self.folder, self.path) = (setting, sequence, folder, path)
    }

    var variables: [String] {
        sequence.hasSourceDate ? ["SOURCE_DATE_EPOCH=\(UmociSequence.sourceDate)"] : []
    }

    func isOurs(_ side: Int) -> Bool { (side == 1) != isSwapped }

    private func side(_ side: Int) -> BytePath { path.appending(BytePath("\(side)")) }

    func edit(_ bundle: String, _ script: String, _ side: Int) throws {
        let root = self.side(side).appending(BytePath("\(bundle)/rootfs"))
        guard (try? FileDescriptor.workingDirectory.status(of: root)) != nil else { return }
        // Each command may fail; what was touched gets one time, and its owner.
        let owner = setting.isRootless ? "chown -hR \(OrdinaryUser.id):\(OrdinaryUser.id) .; " : ""
        try runSuccessfully([
            "/bin/sh", "-c",
            "cd \"$1\" || exit 1; { \(script); } 2>/dev/null; \(owner)find . -newermt @1600000100 -print0 | xargs -0r touch -h -d @1600000050; :",
            "sh", root.description,
        ])
    }

    func tags(_ side: Int) throws -> [String] {
        let index = try LayoutDocument(
            try FileDescriptor.workingDirectory.readFile(
                self.side(side).appending("L/index.json"), limit: 1 << 24))
        return (index["manifests"]?.elements ?? []).compactMap {
            $0["annotations"]?["org.opencontainers.image.ref.name"]?.text
        }
    }

    mutating func compare(_ words: [String], _ results: [CommandResult]) throws {
        let (theirs, ours) = isOurs(1) ? (results[0], results[1]) : (results[1], results[0])
        if theirs.status != ours.status {
            findings.append(
                "umoci ended with \(theirs.status) (\(theirs.errorText)), varve with \(ours.status) (\(ours.errorText))"
            )
        }
        let verb = words.first { !$0.hasPrefix("-") } ?? ""
        // A tag that was given again: umoci moves some of them to the end of the list (Docs/umoci.md).
        let isList = ["list", "ls"].contains(verb)
        func printed(_ result: CommandResult) -> String {
            isList
                ? result.outputText.split(separator: "\n").sorted().joined(separator: "\n")
                : result.outputText
        }
        if printed(theirs) != printed(ours), verb != "stat", theirs.status == 0 {
            findings.append("umoci printed \(theirs.outputText), varve \(ours.outputText)")
        }
        if theirs.status == 0, ours.status == 0, setting.release == .newer,
            theirs.errors.isEmpty != ours.errors.isEmpty
        {
            findings.append("umoci said \(theirs.errorText), varve \(ours.errorText)")
        }
        if words.contains("repack") {
            for side in 0...1 { repacked.formUnion(try layers(side).subtracting(known)) }
        }
        for side in 0...1 { known.formUnion(try layers(side)) }
        for layout in ["L", "N", "a/b/c"] { try compareLayouts(BytePath(layout)) }
        try compareFiles()
    }

    private var known: Set<String> = []

    /// The digests of all layers of a side.
    private func layers(_ side: Int) throws -> Set<String> {
        let layout = self.side(side).appending("L")
        return try UmociLayout(layout, repacked: [], comparesTimes: false, ignoresSize: true).layers
    }

    private mutating func compareLayouts(_ name: BytePath) throws {
        let places = [side(0).appending(name), side(1).appending(name)]
        let isThere = places.map { (try? FileDescriptor.workingDirectory.status(of: $0)) != nil }
        if isThere[0] != isThere[1] { findings.append("\(name) is there on one side only: \(isThere)") }
        guard isThere == [true, true] else { return }
        let ours = isOurs(1) ? 1 : 0
        if setting.release == .newer || !isSwapped {
            for finding in try LayoutChecker.findings(places[ours]) {
                findings.append("layout of varve: \(finding)")
            }
        }
        let comparesTimes = sequence.comparesTimes || sequence.hasSourceDate
        let layouts = try places.map {
            try UmociLayout(
                $0, repacked: repacked, comparesTimes: comparesTimes,
                ignoresSize: setting.release == .installed)
        }
        for line in layouts[0].lines.subtracting(layouts[1].lines).sorted() {
            findings.append("side 0: \(line)")
        }
        for line in layouts[1].lines.subtracting(layouts[0].lines).sorted() {
            findings.append("side 1: \(line)")
        }
    }

    /// Bundles, root file systems and configurations that lie beside the layout.
    private mutating func compareFiles() throws {
        let names = try (0...1).map { side in
            try entries(self.side(side)).map(\.name).sorted()
        }
        if names[0] != names[1] {
            findings.append("beside the layout lie \(names[0]) and \(names[1])")
            return
        }
        for name in names[0] where !["L", "N", "a", "empty", "files"].contains(name.description) {
            let places = [side(0).appending(name), side(1).appending(name)]
            guard try FileDescriptor.workingDirectory.status(of: places[0]).isDirectory else {
                let configurations = try places.map { try UmociBundle.configuration($0) }
                if configurations[0] != configurations[1] {
                    findings.append("\(name): \(configurations[0])\nand \(configurations[1])")
                }
                continue
            }
            let isBundle = name.bytes.first == UInt8(ascii: "b")
            let trees = places.map { isBundle ? $0.appending("rootfs") : $0 }
            for line in try Self.differences(trees[0], trees[1]) { findings.append("\(name): \(line)") }
            if isBundle {
                let bundles = try places.map { try UmociBundle($0) }
                for line in bundles[0].lines.subtracting(bundles[1].lines).sorted() {
                    findings.append("\(name), side 0: \(line)")
                }
                for line in bundles[1].lines.subtracting(bundles[0].lines).sorted() {
                    findings.append("\(name), side 1: \(line)")
                }
            }
        }
    }

    /// Later than all times that are set.
    private static let now = 1_700_000_000

    static func differences(_ left: BytePath, _ right: BytePath) throws -> [String] {
        let first = try FileDescriptor.workingDirectory.openDirectory(left)
        let second = try FileDescriptor.workingDirectory.openDirectory(right)
        // A directory that no layer names, or in which something was made or deleted by one that does not name it, has the
        // time of the unpack with umoci, and one that does not depend on it with varve.
        return try TreeCompare.differences(first.fd, second.fd, OracleOptions(ignoresSubsecondTimes: true))
            .compactMap {
                line in
                guard let colon = line.firstRange(of: ": ") else { return line }
                let kept = line[colon.upperBound...].split(separator: "; ").filter { part in
                    !part.hasPrefix("mtime ")
                        || part.split(whereSeparator: { !$0.isNumber }).allSatisfy { (Int($0) ?? 0) < now }
                }
                return kept.isEmpty ? nil : line[..<colon.upperBound] + kept.joined(separator: "; ")
            }
    }
}

/// A layout as lines of text, equal for layouts that mean the same: owners and modes of what lies in it, and its images.
struct UmociLayout {
    private(set) var lines: Set<String>
    private(set) var layers: Set<String> = []

    init(_ path: BytePath, repacked: Set<String>, comparesTimes: Bool, ignoresSize: Bool) throws {
        let images = try ImageContents(path, comparesTimes, repacked: repacked, ignoresSize: ignoresSize)
        lines = images.lines
        layers = images.layers
        let here = FileDescriptor.workingDirectory
        var owners = Set<String>()
        for name in ["", "blobs", "blobs/sha256"] as [BytePath] {
            let place = name.isEmpty ? path : path.appending(name)
            let status = try here.status(of: place)
            lines.insert("/\(name) \(status.uid):\(status.gid) \(String(status.permissions, radix: 8))")
            for entry in try entries(place) where !name.isEmpty || entry.type != .directory {
                let status = try here.status(of: place.appending(entry.name))
                if !status.isDirectory { owners.insert("\(status.uid):\(status.gid)") }
            }
        }
        lines.insert("files of \(owners.sorted())")
    }
}

/// A bundle but its tree, as lines of text.
struct UmociBundle {
    private(set) var lines: Set<String> = []

    init(_ path: BytePath) throws {
        let here = FileDescriptor.workingDirectory
        let status = try here.status(of: path)
        lines.insert("bundle \(status.uid):\(status.gid) \(String(status.permissions, radix: 8))")
        for entry in try entries(path) {
            let name = entry.name.description
            // The record of varve's own, and mtree files, which bear the digest of a manifest.
            if name.hasSuffix(".record") { continue }
            lines.insert("entry \(name.hasSuffix(".mtree") ? "mtree" : name)")
        }
        let meta = try LayoutDocument(try here.readFile(path.appending("umoci.json"), limit: 1 << 20))
        let mtree = meta["from_descriptor_path"]?["descriptor_walk"]?.elements?.last?["digest"]?.text ?? ""
        let isThere =
            (try? here.status(of: path.appending(BytePath(mtree.replacing(":", with: "_") + ".mtree"))))
            != nil
        lines.insert("mtree file of its manifest: \(isThere)")
        for (key, value) in meta.members ?? [:]
        where !["from_descriptor_path", "whiteout_mode", "varve_keep_dirlinks"].contains(key) {
            lines.insert("umoci.json \(key) \(value)")
        }
        lines.insert(try Self.configuration(path.appending("config.json")))
    }

    /// What of a runtime configuration is not chosen by the tool.
    static func configuration(_ path: BytePath) throws -> String {
        let document = try LayoutDocument(try FileDescriptor.workingDirectory.readFile(path, limit: 1 << 20))
        let process = document["process"] ?? .null
        let parts = ["args", "env", "cwd"].map { "\($0) \(process[$0] ?? .null)" }
        let user = process["user"] ?? .null
        return "config.json "
            + (parts + [
                "uid \(user["uid"] ?? .null)", "gid \(user["gid"] ?? .null)",
                "root \(document["root"]?["path"] ?? .null)",
            ]).joined(separator: ", ")
    }
}

private func entries(_ path: BytePath) throws -> [DirectoryEntry] {
    let directory = try FileDescriptor.workingDirectory.openDirectory(path)
    return try directory.fd.entries()
}
