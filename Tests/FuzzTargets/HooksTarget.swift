import VarveFormats
import VarveArchive
import Glibc
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

extension FuzzTarget {
    /// What hook programs answer, and what another tool asks of `varve hook`. The first byte says which of them, and
    /// whether the rest is JSON as it stands or the recipe of a list of changes.
    ///
    /// A `VarveError` that blames the hook in few words; or changes that fit the tree as it is, each once and in order,
    /// and the same when they are told again; directories in the bundle or the store alone; the names of chains.
    package static let hooks = FuzzTarget(
        name: "hooks", seeds: { hookSeeds }, run: { try HooksPlace.shared.get().run($0) })
}

private let hookSeeds: [[UInt8]] =
    [
        (
            0,
            #"{"changes":[{"change":"added","path":"d/g"},{"change":"modified","path":"."},{"change":"deleted","#
                + #""path":"gone","type":"directory"},{"change":"modified","pathBase64":"bv8="}]}"#
        ),
        (0, #"{"changes":[{"change":"deleted","path":"l/x","other":[1]}]}"#),
        (1, #"{"layers":2,"directories":["@/bundle/a","@/store/x"],"whiteouts":"files"}"#),
        (1, #"{"layers":0}"#),
        (2, #"{"directory":"@/bundle/a/b","extracted":true,"whiteouts":"overlayfs"}"#),
        (2, #"{"directory":"@/bundle/out/y"}"#),
        (3, #"{"runtimeConfig":{"ociVersion":"1.0.2","root":{"path":"rootfs"}}}"#),
        (4, #"{}"#),
        (
            5,
            #"{"protocolVersion":1,"hook":"unpack.ociv1.layer.post-extract","layer":0,"variant":"-dirlinks","#
                + #""layers":[{"diffID":"sha256:\#(String(repeating: "0a", count: 32))"}],"manifestDescriptor":"#
                + #"{"digest":"sha512:\#(String(repeating: "0b", count: 64))"}}"#
        ),
    ].map { kind, text in [UInt8(kind)] + Array(text.utf8) } + [
        [6, 0, 0, 1, 1, 2, 0, 3, 2, 1, 4, 5, 0, 0, 9], [6, 2, 1, 4, 7, 2, 0, 9, 1, 0, 0],
        [6, 1, 0, 8, 2, 0, 3, 2, 1, 3, 1],
    ]

/// The tree and the directories that answers are about.
private final class HooksPlace: Sendable {
    static let shared = Result { try HooksPlace() }

    private let path: BytePath
    private let root: SharedDescriptor
    private let directories: HookDirectories
    /// What there is in the tree.
    private let types: [BytePath: VarveSystem.FileType]

    private init() throws {
        let (path, directory) = try FuzzScratch.make("hooks")
        let top = directory.fd
        for name in [
            "bundle", "bundle/rootfs", "bundle/a", "bundle/a/b", "store", "store/x", "outside", "outside/y",
            "bundle/rootfs/d", "bundle/rootfs/e",
        ] as [BytePath] { try top.makeDirectory(name, mode: 0o755) }
        try top.makeSymbolicLink("bundle/out", target: "../outside")
        let root = SharedDescriptor(try top.openDirectory("bundle/rootfs"))
        for name in [BytePath("f"), BytePath([0x6e, 0xff]) ?? "n"] {
            try root.fd.writeFileDurably(name, Array("x".utf8))
        }
        try root.fd.makeNode("d/g", mode: VarveSystem.FileType.regular.rawValue | 0o600, major: 0, minor: 0)
        try root.fd.makeSymbolicLink("l", target: "d")
        try root.fd.makeNode("p", mode: VarveSystem.FileType.fifo.rawValue | 0o600, major: 0, minor: 0)
        try root.fd.makeNode("s", mode: VarveSystem.FileType.socket.rawValue | 0o600, major: 0, minor: 0)
        try root.fd.link("f", to: root.fd, "h")
        var types: [BytePath: VarveSystem.FileType] = [.current: .directory]
        for name in try root.fd.entries().map(\.name) + ["d/g"] {
            types[name] = try root.fd.status(of: name).type
        }
        self.path = path
        self.root = root
        self.types = types
        directories = HookDirectories(bundle: path.appending("bundle"), store: path.appending("store"))
    }

    func run(_ bytes: [UInt8]) throws -> FuzzTarget.Outcome {
        var input = FuzzInput(bytes)
        let kind = input.byte() % 7
        do {
            if kind == 5 {
                try request(input.all())
            } else {
                let text = kind == 6 ? recipe(&input) : placed(input.all())
                let failure = HookFailure(name: .deltaList, program: "program")
                try answer(kind, HookAnswer(parsing: text, failure: failure), failure)
            }
            return .taken
        } catch let error as VarveError {
            switch error.code {
            case .hookFailed where kind != 5: break
            case .invalidInput where kind == 5, .unsupported where kind == 5: break
            default: throw error
            }
            let length = error.description.utf8.count
            try require(length < 2000, "a message of \(length) bytes")
            return .refused
        }
    }

    private func answer(_ kind: UInt8, _ answer: HookAnswer, _ failure: HookFailure) throws {
        switch kind {
        case 1:
            let taken = try TrySkipAnswer(answer, layers: 3, needsDirectories: true)
            try require(
                (0...3).contains(taken.layers) && taken.directories.count == taken.layers,
                "\(taken.layers) layers in \(taken.directories.count) directories")
            for directory in taken.directories { try isInPlace(directory, failure) }
        case 2: try isInPlace(ExtractToAnswer(answer, layer: 1).directory, failure)
        case 3:
            let value = JSONValue.object(try RuntimeConfigAnswer(answer).configuration)
            try require((try? JSONValue(parsing: value.serialized(pretty: true))) == value, "it is not JSON")
        case 4: try answer.end()
        default:
            let changes = try HookChanges(answer).checked(against: root.fd)
            try check(changes)
            let again = try HookChanges(HookAnswer(parsing: Self.list(changes), failure: failure))
            try require(
                try again.checked(against: root.fd) == changes, "\(changes) are others when told again")
        }
    }

    private func check(_ changes: [Change]) throws(FuzzFinding) {
        for (one, other) in zip(changes, changes.dropFirst()) {
            try require(one.path < other.path, "\(one.path) stands before \(other.path)")
        }
        for change in changes {
            let isClean =
                change.path == .current
                || !change.path.isAbsolute
                    && change.path.components.allSatisfy { $0 != ".." && $0 != "." }
            try require(isClean, "the path \(change.path)")
            if change.kind == .deleted {
                let parent = change.path.parent.isEmpty ? .current : change.path.parent
                try require(types[change.path] == nil, "\(change.path) is deleted, and there")
                try require(types[parent] == .directory, "\(change.path) is deleted where no directory is")
            } else {
                try require(
                    types[change.path] == change.type && change.type != .socket,
                    "\(change.path) is a \(change.type)")
            }
        }
    }

    private func isInPlace(_ directory: BytePath, _ failure: HookFailure) throws {
        let opened = try directories.open(directory, failure)
        defer { extendLifetime(opened) }
        let real = try FileDescriptor.workingDirectory.readSymbolicLink(
            BytePath("/proc/self/fd/\(opened.fd.rawValue)"))
        try require(
            real.hasPrefix(Array("\(path)/bundle/".utf8)) || real.hasPrefix(Array("\(path)/store/".utf8)),
            "\(directory) leads to \(real)")
    }

    private func request(_ bytes: [UInt8]) throws {
        // For whichever hook it is.
        let word = (try? JSONValue(parsing: bytes))?.object?["hook"]?.string
        let name = word.flatMap { HookName(rawValue: $0) } ?? .trySkip
        let request = try ForeignHookRequest(bytes, name)
        let names = try request.chains()
        for name in names {
            try require(
                ChainName(name.description) == name && name.path.components.count == 1, "the chain \(name)")
        }
        try require(names.contains(try request.chain()), "a chain that is none of the image's")
        _ = try request.manifest()
    }

    /// With the path of this place for every `@`.
    private func placed(_ text: [UInt8]) -> [UInt8] {
        text.flatMap { $0 == UInt8(ascii: "@") ? Array(path.bytes) : [$0] }
    }

    private static func list(_ changes: [Change]) -> [UInt8] {
        let list = changes.map { change in
            var member: JSONObject = [
                "change": .string(change.kind.rawValue), "type": .string(change.type.word),
            ]
            if let text = change.path.string {
                member["path"] = .string(text)
            } else {
                let text = Base64.encode(change.path.bytes)
                member["pathBase64"] = .string(String(decoding: text, as: UTF8.self))
            }
            return JSONValue.object(member)
        }
        return JSONValue.object(["changes": .array(list)]).serialized()
    }

    /// A list of changes of paths that may be there.
    private func recipe(_ input: inout FuzzInput) -> [UInt8] {
        let parts: [BytePath] = [
            "f", "d", "g", "l", "e", "p", "h", "s", "x", ".", "..", "", BytePath([0x6e, 0xff]) ?? "n",
            ".wh.f",
            BytePath(String(repeating: "y", count: 255)),
        ]
        var changes: [Change] = []
        while changes.count < 32, !input.isEmpty {
            let kind = input.pick([ChangeKind.added, .modified, .deleted])
            let count = input.byte() % 4
            var path: [UInt8] = []
            for index in 0...count {
                if index > 0 { path.append(UInt8(ascii: "/")) }
                path.append(contentsOf: input.pick(parts).bytes)
            }
            changes.append(Change(kind: kind, path: BytePath(path) ?? .empty, type: .directory))
        }
        return Self.list(changes)
    }
}
