import VarveArchive
public import VarveOCI
import VarveSystem

/// How the owners in layers become those of files, and back: umoci's `--uid-map`, `--gid-map` and `--rootless`.
public struct OwnerMapping: Sendable, Hashable {
    /// Without ranges every id stands for itself.
    public var uids: [IDMapping] { didSet { users = IDMap(uids) } }
    /// Ranges of group ids, as `uids` has them for users.
    public var gids: [IDMapping] { didSet { groups = IDMap(gids) } }
    private var users: IDMap
    private var groups: IDMap
    /// Files belong to the caller, whoever it is: owners in the layer are kept in an attribute (`RootlessOwner`), devices
    /// are empty files, and attributes that the caller may not set are left out.
    public var isRootless: Bool

    /// How owners are mapped; without arguments, not at all.
    public init(uids: [IDMapping] = [], gids: [IDMapping] = [], isRootless: Bool = false) {
        self.uids = uids
        self.gids = gids
        users = IDMap(uids)
        groups = IDMap(gids)
        self.isRootless = isRootless
    }

    /// Files have the owners that the layer says.
    package var isIdentity: Bool { uids.isEmpty && gids.isEmpty && !isRootless }

    /// A suffix for a chain's name: empty for the plain tree, and different for any two that make different trees.
    package var variant: String {
        var whole = isRootless ? "-rootless" : ""
        for range in uids { whole += "-u\(range.containerID)-\(range.hostID)-\(range.size)" }
        for range in gids { whole += "-g\(range.containerID)-\(range.hostID)-\(range.size)" }
        // With the ChainID before it and other options behind it, a name must stay below 255 bytes.
        if whole.utf8.count <= 120 { return whole }
        return (isRootless ? "-rootless" : "") + "-ids-" + Digest(of: Array(whole.utf8)).hex
    }

    /// Throws `tooManyRanges` for a map that no runtime could give the kernel.
    package func check() throws(LayerError) {
        try check(users, .user)
        try check(groups, .group)
    }

    private func check(_ map: IDMap, _ kind: LayerError.OwnerKind) throws(LayerError) {
        if map.count > IDMap.limit { throw .tooManyRanges(kind: kind, count: map.count) }
    }

    /// Root's ids on the host: what a directory gets that no layer describes.
    package func root() throws(LayerError) -> (uid: UInt32, gid: UInt32) {
        (try host(0, .user, "/"), try host(0, .group, "/"))
    }

    /// A layer's entry as it is to be on the host.
    func unpacked(_ entry: TarEntry, caller: (uid: UInt32, gid: UInt32)) throws(LayerError) -> TarEntry {
        if isIdentity { return entry }
        var result = entry
        if isRootless {
            result.extendedAttributes.removeAll { $0.name == RootlessOwner.attribute }
            if let owner = RootlessOwner(uid: entry.uid, gid: entry.gid) {
                result.extendedAttributes.append(
                    ExtendedAttribute(name: RootlessOwner.attribute, value: owner.encoded))
            }
            // Whatever the map says: only root may give files away.
            (result.uid, result.gid) = caller
            if entry.kind == .characterDevice || entry.kind == .blockDevice {
                result.kind = .regular
                result.size = 0
                (result.deviceMajor, result.deviceMinor) = (0, 0)
            }
        } else if entry.kind != .hardLink {
            result.uid = try host(entry.uid, .user, entry.path)
            result.gid = try host(entry.gid, .group, entry.path)
        }
        return result
    }

    /// An entry made of a file on the host as it is to be in a layer.
    func packed(_ entry: TarEntry) throws(LayerError) -> TarEntry {
        if isIdentity { return entry }
        var result = entry
        if isRootless {
            (result.uid, result.gid) = (0, 0)
            guard
                let place = entry.extendedAttributes.firstIndex(where: { $0.name == RootlessOwner.attribute })
            else { return result }
            guard let owner = RootlessOwner(entry.extendedAttributes[place].value) else {
                throw .unrepresentable(
                    path: entry.path,
                    reason: "its attribute \(RootlessOwner.attribute) does not say an owner",
                    remedy: .removeAttribute("\(RootlessOwner.attribute)"))
            }
            result.extendedAttributes.remove(at: place)
            result.uid = owner.uid ?? 0
            result.gid = owner.gid ?? 0
        } else {
            result.uid = try container(entry.uid, .user, entry.path)
            result.gid = try container(entry.gid, .group, entry.path)
        }
        return result
    }

    // MARK: Access control lists

    /// The value of an ACL with the ids that it names on the host. Nil if a rootless tree cannot have it: whom it names
    /// is nobody that the caller's name space knows.
    func unpackedACL(_ value: [UInt8], path: BytePath) throws(LayerError) -> [UInt8]? {
        if isIdentity { return value }
        if isRootless { return PosixACL.namesOthers(value) ? nil : value }
        return try PosixACL.mapped(value) { (id, isUser) throws(LayerError) in
            try host(id, isUser ? .user : .group, path)
        }
    }

    /// The value of an ACL with the ids that it names in the image.
    func packedACL(_ value: [UInt8], path: BytePath) throws(LayerError) -> [UInt8] {
        if isIdentity { return value }
        if isRootless {
            guard PosixACL.namesOthers(value) else { return value }
            throw .unrepresentable(
                path: path, reason: "its ACL names users or groups, which a rootless bundle does not know",
                remedy: .removeACL)
        }
        return try PosixACL.mapped(value) { (id, isUser) throws(LayerError) in
            try container(id, isUser ? .user : .group, path)
        }
    }

    private func host(_ id: UInt32, _ kind: LayerError.OwnerKind, _ path: BytePath) throws(LayerError)
        -> UInt32
    {
        let map = kind == .user ? users : groups
        guard let result = map.host(id) else {
            try check(map, kind)
            throw .unmappedOwner(path: path, kind: kind, id: id, inImage: true)
        }
        return result
    }

    private func container(_ id: UInt32, _ kind: LayerError.OwnerKind, _ path: BytePath) throws(LayerError)
        -> UInt32
    {
        let map = kind == .user ? users : groups
        guard let result = map.container(id) else {
            try check(map, kind)
            throw .unmappedOwner(path: path, kind: kind, id: id, inImage: false)
        }
        return result
    }
}
