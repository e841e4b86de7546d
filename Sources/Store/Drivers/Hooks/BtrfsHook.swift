import Btrfs
public import Layers
public import OCI
public import SystemCalls
import SystemPackage

/// The btrfs store as the hook program of another tool: the other side of the protocol of Docs/hooks.md.
///
/// The tool extracts layers into the bundle, which is a subvolume of the store's file system, and after each the bundle is
/// kept as the chain of that prefix. What the chain holds is what the tool extracted: it must check digests and DiffIDs
/// as it goes.
public struct BtrfsHook: Sendable {
    /// An answer: an object, or the changes for its member `changes`.
    public enum Answer: Sendable {
        case object(JSONObject)
        case changes([Change])
    }

    private let store: SnapshotStore
    private let cancellation: Cancellation

    public init(store: SnapshotStore, cancellation: Cancellation = Cancellation()) {
        self.store = store
        self.cancellation = cancellation
    }

    /// Answers one request.
    /// - Throws: `StoreError`, kind `invalidInput` if the request is not one of this protocol.
    public func answer(_ name: HookName, bundle: BytePath, request bytes: [UInt8]) throws -> Answer {
        let request = try ForeignHookRequest(bytes, name)
        switch name {
        case .trySkip:
            return .object(["layers": .number(JSONNumber(try trySkip(bundle, try request.chains())))])
        case .extractTo:
            throw StoreError(
                .usage,
                "the btrfs store keeps layers on top of each other and takes none alone; leave the hook \(name.rawValue) out"
            )
        case .postExtract:
            try keep(bundle, as: try request.chain())
            return .object([:])
        case .runtimeConfig: return .object(["runtimeConfig": try request.member("runtimeConfig")])
        case .postUnpack:
            try finish(bundle, try request.chains().last, manifest: try request.manifest())
            return .object([:])
        case .deltaList:
            let cancellation = cancellation
            return .changes(
                try BtrfsDriver(store: store).freeze(
                    RepackContext(bundle: bundle, cancellation: cancellation)
                ).delta { try cancellation.check() }.changes)
        case .postRepack: return .object([:])
        }
    }

    /// Makes the bundle a snapshot of the longest prefix there is.
    private func trySkip(_ bundle: BytePath, _ names: [ChainName]) throws -> Int {
        let place = try BundlePlace(bundle, store: store)
        var base: OpenChain?
        var count = 0
        for (index, name) in names.enumerated().reversed() {
            if let chain = try store.chain(name) {
                base = chain
                count = index + 1
                break
            }
        }
        var work = try store.makeWork { directory, name in
            if let base {
                try base.subvolume.fd.snapshot(to: directory, name, readOnly: false)
                return
            }
            try store.makeEmptyTree(name, in: directory, owners: OwnerMapping())
        }
        try place.put(&work)
        return count
    }

    private func keep(_ path: BytePath, as name: ChainName) throws {
        let bundle = try store.openBundle(path)
        let lock = try store.lockChain(name) { try cancellation.check() }
        if try store.chain(name) == nil {
            let work = try store.makeWork { directory, workName in
                try bundle.subvolume.fd.snapshot(to: directory, workName, readOnly: false)
            }
            let workName = work.name
            let snapshot = try attempt("open the snapshot of", path) { () throws(Errno) in
                try store.workDirectory.fd.openDirectory(workName)
            }
            // What the tool has put beside the root file system is the bundle's.
            let others = try attempt("list the snapshot of", path) { () throws(Errno) in
                try snapshot.fd.entries().filter { $0.name != StoreLayout.rootfs }
            }
            for entry in others { try PartialBundleRemoval.removeEntry(entry.name, in: snapshot.fd) }
            _ = try store.publish(name, snapshotOf: workName, in: store.workDirectory.fd)
            extendLifetime(work)
        }
        extendLifetime(lock)
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

/// A request as another tool wrote it.
private struct ForeignHookRequest {
    private let members: JSONObject

    init(_ bytes: [UInt8], _ name: HookName) throws(StoreError) {
        let value: JSONValue
        do throws(JSONSyntaxError) { value = try JSONValue(parsing: bytes) } catch {
            throw Self.invalid("it is not valid JSON: \(error)")
        }
        guard let members = value.object else { throw Self.invalid("it is not a JSON object") }
        guard members["protocolVersion"]?.int64 == HookRunner.protocolVersion else {
            throw Self.invalid("its \"protocolVersion\" is not \(HookRunner.protocolVersion)")
        }
        guard members["hook"]?.string == name.rawValue else {
            throw Self.invalid("its \"hook\" is not \"\(name.rawValue)\"")
        }
        self.members = members
    }

    private static func invalid(_ reason: String) -> StoreError {
        StoreError(
            .invalidInput, "the request on standard input cannot be used: \(reason); see Docs/hooks.md")
    }

    func member(_ key: String) throws(StoreError) -> JSONValue {
        guard let value = members[key] else { throw Self.invalid("it has no \"\(key)\"") }
        return value
    }

    /// The names of all prefixes, counted from the DiffIDs.
    func chains() throws(StoreError) -> [ChainName] {
        let variant = members["variant"]?.string ?? ""
        guard variant.isEmpty || variant == "-dirlinks" else {
            throw StoreError(
                .unsupported,
                "the btrfs store takes no layers with mapped owners through a hook; use it directly")
        }
        guard let layers = try member("layers").array else {
            throw Self.invalid("its \"layers\" is not an array")
        }
        var diffIDs: [DiffID] = []
        for layer in layers {
            guard let text = layer.object?["diffID"]?.string, let digest = Digest(text) else {
                throw Self.invalid("a layer has no \"diffID\"")
            }
            diffIDs.append(DiffID(digest))
        }
        return ChainID.prefixes(of: diffIDs).map { ChainName($0, variant: variant) }
    }

    /// That of the layer in hand.
    func chain() throws(StoreError) -> ChainName {
        let names = try chains()
        guard let index = try member("layer").int64, names.indices.contains(Int(clamping: index)) else {
            throw Self.invalid("its \"layer\" is not the index of one of its layers")
        }
        return names[Int(clamping: index)]
    }

    func manifest() throws(StoreError) -> Digest {
        guard let text = try member("manifestDescriptor").object?["digest"]?.string, let digest = Digest(text)
        else {
            throw Self.invalid("its \"manifestDescriptor\" has no \"digest\"")
        }
        return digest
    }
}
