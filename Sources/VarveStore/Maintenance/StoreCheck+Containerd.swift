import VarveBtrfs
import VarveSystem
import SystemPackage

/// What containerds have in the store. A daemon may serve it meanwhile: nothing of that is repaired then, and what a call of the daemon
/// may just be making or deleting is no finding.
extension StoreCheck {
    /// The directories of all of them, which nobody else may write to.
    func containerdDirectories() throws -> [(BytePath, SharedDescriptor)] {
        let folder = try ContainerdFolder(of: store)
        var result = folder.directory.map { [(StoreLayout.containerd, $0)] } ?? []
        for place in try folder.places() {
            result.append((StoreLayout.containerd.appending(BytePath(place.id)), place.directory))
            if let trees = place.trees { result.append((trees.name, trees.opened)) }
        }
        return result
    }

    func checkContainerds(_ findings: inout [Finding]) throws {
        let folder = try ContainerdFolder(of: store)
        let places = try folder.places()
        let ids = Set(places.map(\.id))
        for entry in try folder.entries() where !ids.contains(entry.name.string ?? "") {
            findings.append(
                foreign(
                    StoreLayout.containerd.appending(entry.name), "it is not the directory of a containerd"))
        }
        for place in places { try check(place, &findings) }
    }

    private func check(_ place: ContainerdPlace, _ findings: inout [Finding]) throws {
        // Held to the end, so that what is found is nobody's work in progress.
        let lock = try place.lock()
        let base = StoreLayout.containerd.appending(BytePath(place.id))
        let state = try place.state()
        func found(_ path: BytePath, _ problem: String, _ what: String, _ repair: () throws -> Void) throws {
            guard lock != nil else {
                findings.append(Finding(path: path, problem: problem, remedy: .endDaemon(place.id)))
                return
            }
            findings.append(try mendable(path, problem, what, repair))
        }

        for fault in state.faults {
            let path = base.appending(StoreLayout.records).appending(fault.name)
            let problem = "it cannot be read, and what it names is kept: \(fault.reason)"
            switch fault.cause {
            case .foreign: findings.append(foreign(path, "it is not the record of a snapshot"))
            case .otherVersion:
                findings.append(Finding(path: path, problem: problem, remedy: .useNewerVersion))
            case .unreadable:
                findings.append(
                    Finding(path: path, problem: problem, remedy: .checkFileSystem("btrfs scrub start")))
            case .broken:
                try found(path, problem, "deleted it; containerd unpacks that image again") {
                    try attempt("remove", path) { () throws(Errno) in try place.records?.remove(fault) }
                }
            }
        }
        for record in state.records {
            let path = (place.trees?.name ?? base).appending(DaemonTrees.name(record.tree))
            guard let tree = try place.open(record.tree) else {
                guard try isStillThere(record, place) else { continue }
                try found(
                    path, "the tree of the snapshot \"\(BytePath.excerpt(record.key.bytes))\" is gone",
                    "deleted the record of the snapshot; containerd unpacks that image again"
                ) {
                    try attempt("remove the record of", path) { () throws(Errno) in
                        try place.records?.remove(record.key)
                    }
                }
                continue
            }
            // That of one which shares it is looked at with its owner.
            if !record.sharesTree { try checkTree(tree, of: record, path, isServed: lock == nil, &findings) }
        }
        if lock != nil { try checkLeftovers(state, place, base, &findings) }
        extendLifetime(lock)
    }

    /// Whether a record is there with a tree that is not: a record counts once its tree is made, and is removed before that is deleted.
    private func isStillThere(_ record: SnapshotRecord, _ place: ContainerdPlace) throws -> Bool {
        try (try? place.records?.read(record.key.fileName))?.tree == record.tree
            && place.open(record.tree) == nil
            && (try? place.records?.read(record.key.fileName))?.tree == record.tree
    }

    /// A tree that nobody may have written to.
    private func checkTree(
        _ tree: SharedDescriptor, of record: SnapshotRecord, _ path: BytePath, isServed: Bool,
        _ findings: inout [Finding]
    ) throws {
        guard record.kind != .active,
            let fault = try store.chains.times.changeFault(tree.fd, tree.fd.settledSubvolumeInfo())
        else { return }
        let key = BytePath.excerpt(record.key.bytes)
        if fault == .writable, !isServed {
            try findings.append(
                mendable(path, "the tree of the snapshot \"\(key)\" was made writable", "made it read-only") {
                    try tree.fd.setSubvolumeReadOnly(true)
                })
        } else {
            findings.append(
                Finding(
                    path: path, problem: "the tree of the snapshot \"\(key)\" was written to; it is not used",
                    remedy: .follow("remove the snapshot, and let containerd unpack the image again")))
        }
    }

    /// What a daemon that was killed left, and the next one deletes.
    private func checkLeftovers(
        _ state: ContainerdPlace.State, _ place: ContainerdPlace, _ base: BytePath,
        _ findings: inout [Finding]
    ) throws {
        let trees = place.trees?.name ?? base
        // The tree of a record that cannot be read is one of those that no record names.
        let isKept = state.faults.contains { fault in
            switch fault.cause {
            case .foreign: false
            case .broken: !repairs
            case .otherVersion, .unreadable: true
            }
        }
        let unnamed = isKept ? [] : state.unnamed.map { DaemonTrees.name($0) }
        for name in unnamed + state.others {
            if let directory = place.trees?.opened, try isStub(name, in: directory) { continue }
            try findings.append(
                mendable(trees.appending(name), "no snapshot of containerd's has this tree", "deleted it") {
                    try place.checkUnused(name)
                    try place.trees?.deleteEntry(name)
                })
        }
        let hasForgotten = try attempt("look at", base) { () throws(Errno) in
            try place.directory.fd.statusIfPresent(of: ContainerdPlace.forgotten) != nil
        }
        if hasForgotten {
            try findings.append(
                mendable(
                    base.appending(ContainerdPlace.forgotten), "an interrupted command left it", "deleted it"
                ) {
                    try place.removePlainDirectory(ContainerdPlace.forgotten)
                })
        }
    }
}
