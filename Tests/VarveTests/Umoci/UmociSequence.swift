import Glibc
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// A release of umoci that is compared with.
enum UmociRelease: String, CaseIterable, Sendable {
    /// Debian 12's, installed.
    case installed = "0.4.7"
    /// Fetched aside by `Scripts/install-dependencies --test`.
    case newer = "0.6.0"

    func program() throws -> String {
        if self == .installed { return "umoci" }
        var caches = "/var/cache"
        if let given = unsafe getenv("XDG_CACHE_HOME") { caches = unsafe String(cString: given) }
        let path = BytePath("\(caches)/varve-test/umoci-\(rawValue)/usr/bin/umoci")
        guard (try? FileDescriptor.workingDirectory.status(of: path)) != nil else {
            throw TestSupportError(
                "umoci \(rawValue) is not at \"\(path)\"; run: Scripts/install-dependencies --test")
        }
        return path.description
    }
}

/// Steps that two sides go through alike, each a directory with a layout in it: at first umoci works on one side and varve,
/// called umoci, on the other.
struct UmociSequence: Sendable, CustomStringConvertible {
    enum Step: Sendable {
        /// Words behind the name of the program; paths are relative to the side.
        case command([String])
        /// A shell script in the root file system of a bundle.
        case edit(String, String)
        /// Each goes on with what the other has made.
        case swap
    }

    var name: String
    var steps: [Step]
    /// `SOURCE_DATE_EPOCH`, so that times are compared too.
    var hasSourceDate = false
    /// Times are given in all commands.
    var comparesTimes = false

    /// As a shell would be told it.
    var description: String {
        let lines = steps.map { step in
            switch step {
            case .command(let words): "umoci " + words.map(quoted).joined(separator: " ")
            case .edit(let bundle, let script): "(cd \(bundle)/rootfs; \(script))"
            case .swap: "# each goes on with the other's"
            }
        }
        return
            (["# \(name)"] + (hasSourceDate ? ["export SOURCE_DATE_EPOCH=\(Self.sourceDate)"] : []) + lines)
            .joined(separator: "\n")
    }

    static let sourceDate: Int64 = 1_500_000_000

    /// What a layer gives to files that changed later, in seconds.
    var latestTime: Int64 { hasSourceDate ? Self.sourceDate : .max }
}

private func quoted(_ word: String) -> String {
    let plain = word.utf8.allSatisfy {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
            || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0)
            || "0123456789-_=./:,%+@".utf8.contains($0)
    }
    return plain && !word.isEmpty
        ? word
        : "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
}

/// What kind of user works with what kind of bundle, compared with which release.
struct UmociSetting: Sendable, CustomTestStringConvertible {
    var release: UmociRelease
    /// Else bundles are plain directories.
    var isBtrfs: Bool
    /// An ordinary user with `--rootless`; else root.
    var isRootless: Bool
    var testDescription: String {
        "umoci \(release.rawValue), \(isBtrfs ? "btrfs" : "directory"), \(isRootless ? "rootless" : "root")"
    }

    /// Its place among all.
    var number: UInt64 { (isRootless ? 4 : 0) + (isBtrfs ? 0 : 2) + (release == .installed ? 0 : 1) }

    static let all = [false, true].flatMap { isRootless in
        [true, false].flatMap { isBtrfs in
            UmociRelease.allCases.map { UmociSetting(release: $0, isBtrfs: isBtrfs, isRootless: isRootless) }
        }
    }
}

/// Makes sequences at random, the same ones from the same seed.
struct UmociGrammar {
    private var random: HistoryRandom
    private let setting: UmociSetting
    private var tags = ["base", "full", "bare"]
    private var bundles: [String] = []
    private var count = 0
    private var hasOther = false
    private var isNewer: Bool { setting.release == .newer }

    init(seed: Int, setting: UmociSetting) {
        random = HistoryRandom(seed: UInt64(seed) &* UInt64(UmociSetting.all.count) &+ setting.number)
        self.setting = setting
    }

    mutating func sequence(_ name: String) -> UmociSequence {
        var result = UmociSequence(name: name, steps: [])
        if isNewer { result.hasSourceDate = random.isOne(in: 2) }
        for _ in 0..<(2 + random.below(6)) {
            result.steps += steps()
            if random.isOne(in: 6) { result.steps.append(.swap) }
        }
        return result
    }

    private mutating func steps() -> [UmociSequence.Step] {
        switch random.below(26) {
        case 0..<5: return [command(config())]
        case 5..<9: return [command(insert())]
        case 9:
            return [
                command(
                    ["raw", "add-layer", image()] + newTag() + history() + compress() + ["files/archive.tar"])
            ]
        case 10: return [command(["tag", image()] + [tag(like: "t")])]
        case 11: return [command([pick(["rm", "remove"]), image(removes: true)])]
        case 12: return [command(["new", "--image=L:" + tag(like: "n")])]
        case 13: return [command(["gc", "--layout=L"])]
        case 14: return [command([pick(["ls", "list"]), "--layout", "L"])]
        case 15: return [command(mistake())]
        case 16:
            let keeps = toggle("keep-dirlinks", in: 4)
            return [command(["raw", "unpack", image()] + keeps + owners() + [name("r")])]
        case 17, 18:
            var words = ["raw", pick(["runtime-config", "config"]), image()]
            if !bundles.isEmpty, random.isOne(in: 2) {
                words.append(
                    "--rootfs=\(bundles[random.below(bundles.count)])/"
                        + pick(["rootfs", "rootfs/", "./rootfs"]))
            }
            return [command(words + owners() + [name("c")])]
        case 19 where !hasOther:
            hasOther = true
            return [
                command(["init", "--layout=N"]), command(["new", "--image", "N:a"]),
                command(["insert", "--image=N:a"] + history() + ["files/tree", "/"]),
                command(["ls", "--layout", "N"]),
            ]
        default: return bundle()
        }
    }

    /// Flags may stand before and behind arguments.
    private mutating func command(_ words: [String]) -> UmociSequence.Step {
        switch random.below(24) {
        case 0: .command(["--log=error"] + words)
        case 1: .command(["-log", "fatal"] + words)
        // Of a collection umoci says more.
        case 2 where words[0] != "gc" && !words[0].hasPrefix("-"):
            .command([pick(["--verbose", "--log=info"])] + words)
        default: .command(words)
        }
    }

    private mutating func bundle() -> [UmociSequence.Step] {
        if bundles.isEmpty || random.isOne(in: 3) {
            let bundle = name("b")
            bundles.append(bundle)
            let keeps = toggle("keep-dirlinks", in: 4)
            return [.command(["unpack", image()] + keeps + owners() + [bundle])]
        }
        let bundle = bundles[random.below(bundles.count)]
        var steps: [UmociSequence.Step] = []
        if !random.isOne(in: 5) {
            let known = Self.edits + (setting.isRootless ? [] : Self.rootEdits)
            let script = (0...random.below(3)).map { _ in pick(known) }.joined(separator: "; ")
            steps.append(.edit(bundle, script))
        }
        if random.isOne(in: 8) { steps.append(.swap) }
        var words = ["repack", "--image=L:" + tag(like: "p")] + toggle("refresh-bundle", in: 2)
        for _ in 0..<random.below(3) {
            words += ["--mask-path", pick(["/etc", "/none", "/new", "/etc/", "/data/volume", "/a/b"])]
        }
        words += toggle("no-mask-volumes", in: 4)
        // With both, and nothing changed, umoci makes the same image again and fails at its mtree file.
        var history = history()
        if words.contains(where: { $0.hasSuffix("refresh-bundle") || $0.hasSuffix("refresh-bundle=true") }) {
            history.removeAll { $0.hasSuffix("no-history") || $0 == "--no-history=true" }
        }
        steps.append(.command(words + history + compress() + [bundle]))
        return steps
    }

    /// What changes in a tree; whatever is not there is passed over.
    private static let edits = [
        "echo new > new", "echo more >> etc/conf", "rm -rf etc/sub", "rm -f etc/conf",
        "mkdir -p a/b/c; echo x > a/b/c/d",
        "rm -rf a", "ln -sfn ../etc a-link", "mkdir -p data; echo v > data/volume", "chmod 750 etc",
        "chmod 4711 new",
        "ln -f new hard", "mkfifo pipe", "rm -f hard", "echo 'odd  name' > 'odd  name'; echo x > '#[x]*?'",
        "rm -rf opt",
        "truncate -s 100000 sparse", "rm -rf etc; echo file > etc",
        "mkdir -p deep/$(printf '%0200d' 1)/$(printf '%0200d' 2)",
        "setfattr -n user.k -v v new", "mv new renamed",
        "printf 'caf\\303\\251' > \"$(printf 'caf\\303\\251')\"", "touch -d @1 .",
        "mv etc/sub etc/other", "rm -rf etc/sub; ln -s /data etc/sub", "rm -rf data; echo x > data",
        "rm -f a-link; mkdir a-link; echo x > a-link/x", "cp -a etc copy", "touch etc/conf",
        "touch -d @7 etc/passwd",
        "setfattr -x user.k new", "chmod 0 new", "rm -rf etc; mkdir etc; echo y > etc/y",
        "ln -sfn new soft; ln -f soft twin",
        "mkdir -p x/y; rmdir x/y", "true > etc/conf", "ln -f etc/conf etc/third", "echo 1 > etc/third",
        "printf 'nl' > \"$(printf 'a\\nb')\"", "printf b > \"$(printf 'b\\377')\"",
        "truncate -s 3M big; echo end >> big",
        "mkdir -m 2775 shared; mkdir -m 1777 tmp; echo t > tmp/t", "rm -rf * .??*",
    ]
    /// What an ordinary user cannot unpack.
    private static let rootEdits = [
        "chown 5:6 etc/conf", "chown -h 7:8 soft", "mknod null c 1 3", "mknod block b 7 9; chmod 640 block",
        "chown 1:1 new; chmod 6755 new", "setcap cap_net_raw+ep new", "setfattr -n trusted.t -v 1 etc",
    ]

    private mutating func config() -> [String] {
        var words = ["config", image()] + newTag()
        for _ in 0...random.below(3) {
            switch random.below(14) {
            case 0: words += ["--config.user", pick(["web", "1000:7", "", "0"])]
            case 1: words += ["--config.exposedports=" + pick(["80/tcp", "53/udp", "8080", "a,b"])]
            case 2:
                words += [
                    "--config.env",
                    pick(["A=1", "A=", "PATH=/x:/y", "B=a b", "C=\"q\"", "D=tab\there", "=x", "x", "É=é"]),
                ]
            case 3:
                words += [
                    "--config.entrypoint", pick(["/bin/sh", "-c", "a b", "", "x,y", "\"", "\\", "<&>"]),
                ]
            case 4: words += ["--config.cmd", pick(["run", "--flag", "b\tc", "", "ü", "new\nline", "'"])]
            case 5: words += ["--config.volume=" + pick(["/data", "/new", "/var/x y", "etc"])]
            case 6:
                words += [
                    "--config.label",
                    pick(["who=me", "com.example.k=v=w", "a b=c,d", "x", "l=", "e=\u{1b}[31m"]),
                ]
            case 7: words += ["--config.workingdir", pick(["/srv", "", "rel", "/a b"])]
            case 8: words += ["--config.stopsignal", pick(["SIGTERM", "9", ""])]
            case 9: words += ["--author", pick(["Me <me@example.org>", "", "Ä, Ö"])]
            case 10:
                words += [
                    "--created", pick(["2020-01-02T03:04:05Z", "2020-01-02T03:04:05.123Z", "yesterday"]),
                ]
            case 11: words += ["--manifest.annotation", pick(["a=b", "c=d=e", "k=v, w"])]
            case 12:
                words += [
                    "--clear",
                    pick([
                        "config.labels", "manifest.annotations", "config.exposedports", "config.env",
                        "config.volume", "config.cmd", "config.entrypoint", "rootfs.diffids", "nothing",
                    ]),
                ]
            default: words += [pick(["--os", "--platform.os"]), "linux"]
            }
        }
        if !isNewer { words = words.map { ["--platform.os": "--os"][$0] ?? $0 } }
        return words + history()
    }

    private mutating func insert() -> [String] {
        var words = ["insert", image()] + newTag() + history() + compress() + owners()
        let target = pick(["/opt", "etc", "/etc/conf", "a/b/c", "/", "/opt/../srv/x", "/new"])
        if random.isOne(in: 4) { return words + ["--whiteout", target == "/" ? "/etc" : target] }
        let source = pick([
            "files/file", "files/setid", "files/attributes", "files/tree", "files/empty", "files/tree/link",
            "files/tree/", "files/tree/fifo", "files/tree/dir",
        ])
        let isDirectory = ["tree", "tree/", "dir", "empty"].contains { source.hasSuffix($0) }
        if isDirectory, random.isOne(in: 3) { words.append("--opaque") }
        return words + [source, target == "/" && !isDirectory ? "/file" : target]
    }

    private mutating func mistake() -> [String] {
        pick([
            ["stat", "--image", "L:none"], ["config", "--image", "L:none"],
            ["tag", "--image", "L:none", "x"],
            ["ls", "--layout", "none"], ["tag", "--image", "L:full", "a b"], ["new", "--image", "L:"],
            ["unpack", "--image", "L:full"],
            ["repack", "--image", "L:x", "none"], ["gc"], ["bogus"], ["raw", "bogus"],
            ["ls", "--layout", "L", "--bogus"],
            ["new", "--image", "none:x"],
            ["config", "--image", "L:full", "--no-history", "--history.comment", "x"],
            ["insert", "--image", "L:full", "files/none", "/x"], ["init", "--layout", "L"],
            ["rm", "--image", "none:x"],
            ["raw", "add-layer", "--image", "L:full", "files/none"],
            ["raw", "add-layer", "--image", "L:full", "files"],
            ["--log=loud", "ls", "--layout", "L"], ["--verbose", "--log=info", "ls", "--layout", "L"],
        ])
    }

    private mutating func owners() -> [String] {
        if setting.isRootless { return [pick(["--rootless", "-rootless", "--rootless=true"])] }
        return random.isOne(in: 6)
            ? pick([
                ["--uid-map=0:100:50", "--gid-map", "0:200:50"], ["--rootless=false"],
                ["--uid-map", "0:1000:7", "--uid-map", "7:7:100", "--gid-map", "0:0:65536"],
            ]) : []
    }

    /// A toggle in one of its forms, or none.
    private mutating func toggle(_ name: String, in count: Int) -> [String] {
        random.isOne(in: count) ? [pick(["--\(name)", "-\(name)", "--\(name)=true", "--\(name)=false"])] : []
    }

    private mutating func compress() -> [String] {
        guard isNewer, random.isOne(in: 3) else { return [] }
        return ["--compress=" + pick(["auto", "gzip", "zstd", "none", "lzma"])]
    }

    private mutating func newTag() -> [String] {
        random.isOne(in: 3) ? ["--tag", tag(like: "g")] : []
    }

    /// Some are there already, and move to the end of the list.
    private mutating func tag(like prefix: String) -> String {
        random.isOne(in: 4) ? pick(tags) : add(tag: name(prefix))
    }

    private mutating func history() -> [String] {
        switch random.below(8) {
        case 0: return [pick(["--no-history", "--no-history=true", "--no-history=false"])]
        case 1: return ["--history.comment", pick(["why", "a, b", "t\tb", ""])]
        case 2: return ["--history.author=" + pick(["h", ""]), "--history.created_by", "me"]
        case 3:
            return ["--history.created", pick(["2021-06-07T08:09:10Z", "2021-06-07T08:09:10.5Z", "never"])]
        default: return []
        }
    }

    private mutating func image(removes: Bool = false) -> String {
        let place = random.below(tags.count)
        let tag = tags[place]
        if removes, tags.count > 1 { tags.remove(at: place) }
        return "--image=L:" + tag
    }

    private mutating func add(tag: String) -> String {
        tags.append(tag)
        return tag
    }

    private mutating func name(_ prefix: String) -> String {
        count += 1
        return "\(prefix)\(count)"
    }

    private mutating func pick<T>(_ choices: [T]) -> T { choices[random.below(choices.count)] }
}

extension HistoryRandom {
    fileprivate mutating func isOne(in count: Int) -> Bool { below(count) == 0 }
}

extension UmociSequence {
    /// Bundles change hands: what one unpacked the other repacks, refreshes and repacks again.
    static func bundles(isRootless: Bool) -> [UmociSequence] {
        let rootless = isRootless ? ["--rootless"] : []
        let edits = [
            "nothing": ":", "a file": "echo new > new", "a change": "echo other > etc/conf",
            "a deletion": "rm -r etc/sub",
            "a file for a directory": "rm -r etc/sub; echo x > etc/sub",
            "a directory for a file": "rm etc/conf; mkdir etc/conf; echo y > etc/conf/y",
            "a mode": "chmod 600 etc/passwd",
            "links": "ln -s conf etc/soft; ln etc/conf etc/hard; mkfifo pipe", "a link less": "rm etc/link",
            "a deep tree": "mkdir -p a/b/c/d; echo z > a/b/c/d/e; chmod 1777 a/b",
            "a volume": "echo v > data/v",
            "attributes": "setfattr -n user.k -v v etc/conf", "odd names": "echo x > 'a b'; echo y > '#*?['",
        ]
        var result = [
            UmociSequence(
                name: "a user that the image does not have",
                steps: [
                    .command(["config", "--image=L:full", "--config.user", "nowhere"]),
                    .command(["unpack", "--image=L:full"] + rootless + ["b"]),
                    .command(["ls", "--layout=L"]),
                ])
        ]
        for (name, script) in edits.sorted(by: { $0.key < $1.key }) {
            for isSwapped in [false, true] {
                let swap: [Step] = isSwapped ? [.swap] : []
                result.append(
                    UmociSequence(
                        name: "\(name)\(isSwapped ? ", handed over" : "")",
                        steps: [.command(["unpack", "--image", "L:full"] + rootless + ["b"])] + swap + [
                            .edit("b", script)
                        ]
                            + [.command(["repack", "--refresh-bundle", "--image", "L:one", "b"])] + swap
                            + [.edit("b", "echo 2 > two; rm -f etc/passwd")]
                            + [
                                .command(["repack", "--image=L:two", "b"]),
                                .command(["repack", "--image=L:three", "b"]),
                            ]))
            }
        }
        return result
    }
}
