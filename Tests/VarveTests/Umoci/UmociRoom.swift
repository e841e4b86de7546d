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
    private let cache = LayerCache()

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
        umoci=$3
        cd ../start; "$umoci" init --layout L; "$umoci" new --image L:bare; rootless=; [ "$4" = 0:0 ] || rootless="--uid-map 0:${4%:*}:1 --gid-map 0:${4#*:}:1"
        "$umoci" insert $rootless --image L:bare --tag base "$1/files/base" /
        "$umoci" config --image L:base --tag full --config.env A=1 --config.label who=me --config.cmd sh --config.volume /data \\
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
        var sides = try UmociSides(
            self.setting, sequence, folder: folder, path: volume.path.appending(BytePath(folder)),
            cache: cache)
        for step in sequence.steps {
            switch step {
            case .swap: sides.isSwapped.toggle()
            case .edit(let bundle, let script): try sides.edit(bundle, script)
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
        // What the layout is that every sequence begins with is the same each time.
        if sides.hasChanges { try compareReaders(&sides, folder) }
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
            for line in try UmociSides.differences(trees[0].1, tree, latestTime: sides.sequence.latestTime) {
                sides.findings.append("the tree of \(tag) by \(name) is not that by \(trees[0].0): \(line)")
            }
        }
    }
}
