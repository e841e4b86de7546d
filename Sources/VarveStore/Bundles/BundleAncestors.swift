import VarveBtrfs
import VarveSystem
import SystemPackage

/// What a bundle's attribute `trusted.varve.ancestors` says: whose snapshot the bundle was, and since when, and the same of each subvolume on
/// the way from its chain. One that its chain was published from is said to go on from the chain, since that was. Whoever deletes one of them, as a build does with the bundles of its steps, does not take away what the delta of
/// the others counts from. One line each, `UUID PARENT-UUID TRANSACTION`, the youngest first.
///
/// btrfs never changes these three, and gives no UUID twice. A line is looked at only where the parent UUIDs of btrfs itself lead to its
/// UUID, so lines that came along with a copy say nothing. Whoever may write to a bundle's directory could write false ones: only root can write
/// this attribute. Others have it as `user.varve.ancestors`, of which root believes nothing.
struct BundleAncestors {
    /// Lines at most: the attribute fits a block of metadata. A bundle that is further away from its chain is compared whole.
    private static let limit = 32

    private(set) var infos: [SubvolumeInfo]

    /// Lines that cannot be understood are passed over.
    init(_ attribute: [UInt8]) {
        infos = attribute.split(separator: UInt8(ascii: "\n")).compactMap { line in
            let words = String(decoding: line, as: UTF8.self).split(separator: " ")
            guard words.count == 3, let uuid = SubvolumeUUID(words[0]), let parent = SubvolumeUUID(words[1]),
                let transaction = UInt64(words[2])
            else { return nil }
            return SubvolumeInfo(uuid: uuid, parentUUID: parent, originTransaction: transaction)
        }
    }

    /// Those of a bundle, or of a snapshot of one.
    init(of subvolume: FileDescriptor) throws(Errno) {
        self = try BundleAncestors(writtenByRootTo: subvolume)
        if infos.isEmpty, !Privileges.isRoot {
            self = BundleAncestors(try subvolume.extendedAttribute(StoreLayout.ownAncestorsAttribute) ?? [])
        }
    }

    /// Those that nobody but root can have written; none for callers who cannot see them.
    init(writtenByRootTo subvolume: FileDescriptor) throws(Errno) {
        self.init(try subvolume.extendedAttribute(StoreLayout.ancestorsAttribute) ?? [])
    }

    /// Whether a bundle, or a snapshot of one, comes from a chain by snapshots, or by going on from where that was published, as btrfs and these
    /// lines say.
    ///
    /// - Parameters:
    ///   - uuid: its own.
    ///   - parent: of which it is a snapshot.
    func lead(from uuid: SubvolumeUUID, _ parent: SubvolumeUUID?, to chain: SubvolumeUUID) -> Bool {
        if parent == chain { return true }
        var parents = Dictionary(
            infos.map { ($0.uuid, $0.parentUUID) }, uniquingKeysWith: { first, _ in first })
        var next = (parents.removeValue(forKey: uuid) ?? nil) ?? parent
        while let current = next {
            if current == chain { return true }
            next = parents.removeValue(forKey: current) ?? nil
        }
        return false
    }

    /// Writes them to a new bundle, before those that came along from what it is a snapshot of.
    ///
    /// - Parameter origins: the bundle itself, and the snapshot that it was made of. A chain is none of them: what is counted from a chain needs
    ///   it to be there.
    static func add(_ origins: [SubvolumeInfo], to bundle: FileDescriptor) throws(Errno) {
        var ancestors = try BundleAncestors(of: bundle)
        ancestors.infos.insert(contentsOf: origins.filter { $0.parentUUID != nil }, at: 0)
        guard !ancestors.infos.isEmpty else { return }
        do throws(Errno) {
            try bundle.setExtendedAttribute(
                ExtendedAttribute(name: StoreLayout.ancestorsAttribute, value: ancestors.encoded))
        } catch .notPermitted {
            try bundle.setExtendedAttribute(
                ExtendedAttribute(name: StoreLayout.ownAncestorsAttribute, value: ancestors.encoded))
        }
    }

    private var encoded: [UInt8] {
        infos.prefix(Self.limit).flatMap { info in
            Array(
                "\(info.uuid) \(info.parentUUID.map { "\($0)" } ?? "") \(info.originTransaction)\n".utf8)
        }
    }
}
