import VarveFormats
import VarveBtrfs
package import VarveLayers
import VarveOCI
package import VarveSystem
import SystemPackage

/// The btrfs store as the hook program of another tool: the other side of the protocol of Docs/hooks.md.
///
/// The tool extracts layers into the bundle, which is a subvolume of the store's file system, and after each the bundle is
/// kept as the chain of that prefix. What the chain holds is what the tool extracted: it must check digests and DiffIDs
/// as it goes.
package struct BtrfsHook: Sendable {
    package enum Answer: Sendable {
        /// The whole answer: a JSON object.
        case object([UInt8])
        /// The changes, in path order, that the member `changes` of the answer lists.
        case changes([Change])

        /// The whole answer, in one piece.
        package var bytes: [UInt8] {
            switch self {
            case .object(let bytes): bytes
            case .changes(let changes):
                Array("{\"changes\":".utf8) + Change.json(changes) + [UInt8(ascii: "}")]
            }
        }
    }

    private let store: SnapshotStore
    private let cancellation: Cancellation

    package init(store: SnapshotStore, cancellation: Cancellation = Cancellation()) {
        self.store = store
        self.cancellation = cancellation
    }

    /// Answers one request.
    /// - Throws: `VarveError`, kind `invalidInput` if the request is not one of this protocol.
    package func answer(_ name: HookName, bundle: BytePath, request bytes: [UInt8]) throws -> Answer {
        try requireOwnPath(of: bundle)
        let request = try ForeignHookRequest(bytes, name)
        switch name {
        case .trySkip:
            return Self.object(["layers": .number(JSONNumber(try trySkip(bundle, try request.chains())))])
        case .extractTo:
            throw VarveError(
                .usage,
                "the btrfs store keeps layers on top of each other and takes none alone",
                remedy: .correctHooks("leave the hook \(name.rawValue) out")
            )
        case .postExtract:
            try keep(bundle, as: try request.chain())
            return Self.object([:])
        case .runtimeConfig: return Self.object(["runtimeConfig": try request.member("runtimeConfig")])
        case .postUnpack:
            try finish(bundle, try request.chains().last, manifest: try request.manifest())
            return Self.object([:])
        case .deltaList:
            let cancellation = cancellation
            return .changes(
                try BtrfsDriver(store: store).freeze(
                    RepackContext(bundle: bundle, cancellation: cancellation)
                ).delta { try cancellation.check() }.requireAll().changes)
        case .postRepack, .preRemove: return Self.object([:])
        }
    }

    private static func object(_ object: JSONObject) -> Answer {
        .object(JSONValue.object(object).serialized())
    }

    /// Makes the bundle a snapshot of the longest prefix there is.
    private func trySkip(_ bundle: BytePath, _ names: [ChainName]) throws -> Int {
        let place = try BundlePlace(bundle, store: store)
        let base = try store.chains.findLongest(of: names)
        var tree = try ChainBuilder(in: store, for: bundle, on: base?.chain).takeTree()
        try place.put(&tree, mode: UnpackContext.closedBundleMode)
        return base?.layers ?? 0
    }

    private func keep(_ path: BytePath, as name: ChainName) throws {
        let bundle = try store.openBundle(path)
        let builder = ChainBuilder(
            in: store, for: path, copying: ChainBuilder.Original(bundle.subvolume))
        try builder.build(name, whileWaiting: { try cancellation.check() }) {
            let snapshot = try builder.subvolume()
            // What the tool has put beside the root file system is the bundle's.
            let others = try attempt("list the snapshot of", path) { () throws(Errno) in
                try snapshot.fd.entries().filter { $0.name != StoreLayout.rootfs }
            }
            for entry in others { try PartialBundleRemoval.removeEntry(entry.name, in: snapshot.fd) }
            guard try !snapshot.holdsSubvolumeNames(path) else {
                throw VarveError(
                    .failed,
                    "a subvolume lies in the bundle \"\(path)\", of which a chain would keep an empty directory",
                    subject: path, remedy: .follow("delete it, and unpack again"))
            }
            return true
        }
    }

    private func finish(_ path: BytePath, _ name: ChainName?, manifest: Digest) throws {
        let bundle = try store.openBundle(path)
        let records = ChainRecords(name.map { .chain($0) } ?? .empty, for: manifest)
        try attempt("write the name of its chain to", path) { () throws(Errno) in
            try bundle.subvolume.fd.setExtendedAttribute(
                ExtendedAttribute(name: StoreLayout.chainAttribute, value: records.encoded))
            try bundle.subvolume.fd.synchronize()
        }
    }
}
