package import Logging
import SystemPackage
package import VarveLayers
package import VarveSystem
package import VarveBtrfs

/// A tree that does not change for as long as this value is there: a side of a delta.
package struct StillTree {
    /// What errors name; nil for the tree that it is the base of.
    private let path: BytePath?
    package let subvolume: SharedDescriptor
    /// What is known of it.
    let state: DeltaTree.State
    /// Subvolumes that may lie between this one and another, and that nobody could look up: those that are gone.
    private let known: [SubvolumeInfo]
    /// What makes that it does not change, or go away.
    private let holder: AnyObject?
    /// As of `DeltaTree`.
    private let isUndisturbed: Bool

    private init(
        _ subvolume: SharedDescriptor, at path: BytePath?, state: DeltaTree.State,
        known: [SubvolumeInfo] = [],
        holder: AnyObject? = nil, isUndisturbed: Bool = false
    ) {
        self.path = path
        self.subvolume = subvolume
        self.state = state
        self.known = known
        self.holder = holder
        self.isUndisturbed = isUndisturbed
    }

    /// A chain, which is what was published, and is not removed while it is open.
    package init(_ chain: OpenChain) {
        self.init(
            chain.subvolume, at: nil, state: .proven(chain.info), holder: chain.subvolume,
            isUndisturbed: true)
    }

    /// Any other subvolume with `rootfs/` in it, which nobody changes.
    ///
    /// - Parameter known: subvolumes that it descends from and that may be gone.
    package init(
        _ subvolume: SharedDescriptor, at path: BytePath? = nil, state: DeltaTree.State = .unknown,
        known: [SubvolumeInfo] = []
    ) {
        self.init(subvolume, at: path, state: state, known: known, holder: nil)
    }

    /// A tree that was frozen.
    package init(_ frozen: FrozenTree) {
        self.init(
            frozen.subvolume, at: frozen.path, state: .snapshot, known: frozen.origins, holder: frozen)
    }

    /// The tree of an image with no layers, made now.
    package init(emptyIn work: WorkArea, owners: OwnerMapping, for subject: BytePath) throws {
        let tree = try work.makeEmptyTree(for: subject, owners: owners)
        let subvolume = try tree.open(for: subject)
        // Writable, but nobody else's.
        self.init(subvolume, at: nil, state: .snapshot, holder: SharedWork(tree))
    }

    /// The root directory of the tree.
    ///
    /// - Parameter subject: what it is the base of, for errors.
    package func rootfs(for subject: BytePath) throws(VarveError) -> SharedDescriptor {
        SharedDescriptor(
            try attempt(path == nil ? "open the base of" : "open", path ?? subject) { () throws(Errno) in
                try subvolume.fd.openDirectory(StoreLayout.rootfs)
            })
    }

    /// What this tree differs in from `old`.
    package func delta(
        from old: StillTree, source: DeltaSource = .auto, logger: Logger,
        onEntry: @escaping @Sendable () throws -> Void = {}
    ) throws -> DeltaResult {
        let subject = path ?? BytePath("another tree")
        let oldRoot = try old.rootfs(for: subject)
        let root = try rootfs(for: subject)
        return try Delta.compute(
            old: DeltaTree(
                subvolume: old.subvolume.fd, root: oldRoot.fd, state: old.state,
                isUndisturbed: old.isUndisturbed),
            new: DeltaTree(subvolume: subvolume.fd, root: root.fd, state: state), source: source,
            known: old.known + known, logger: logger, onEntry: onEntry)
    }
}
