import Synchronization
import VarveSystem
import SystemPackage

/// What a pair of equal inode numbers says when there are no dirty inodes to ask.
enum InodeTrust: Sendable {
    /// Nothing: the two trees gave out the same numbers on their own.
    case none
    /// The same inode with the same change time, older than this moment, is the same file unchanged.
    case unchangedBefore(Timestamp)
}

/// What a walk has found.
struct WalkFindings {
    var changes: [BytePath: Change] = [:]
    /// What was met of files with several names.
    var links = HardLinks()
    /// The first change whose path no layer can hold: a new directory, or what is in a directory with such a path. What is in those is not
    /// among the changes.
    var tooDeep: BytePath?

    /// Whoever runs a container can make a tree of any depth, whose paths together grow with the square of it. So the walk enters no new
    /// directory, and keeps no change, where no layer goes on.
    fileprivate mutating func isTooDeep(_ path: BytePath) -> Bool {
        guard path.count > LayerPacker.pathLimit else { return false }
        tooDeep = tooDeep.map { min($0, path) } ?? path
        return true
    }

    /// - Parameter directory: in which the change is.
    fileprivate mutating func note(
        _ kind: ChangeKind, _ path: BytePath, in directory: BytePath, _ type: VarveSystem.FileType
    ) {
        if directory.count > LayerPacker.pathLimit {
            _ = isTooDeep(path)
        } else {
            changes[path] = Change(kind: kind, path: path, type: type)
        }
    }
}

/// Walks two trees side by side and finds the paths at which they differ.
///
/// With dirty inodes it is pruned: a path that has the same clean inode in both trees, with no dirty inode below it in
/// the new tree, is the same in both. So the cost follows the changes, and renamed, swapped and retyped directories
/// need no case of their own. Without dirty inodes everything is compared.
///
/// The unit of work is a directory. Few directories stay open for what is still to do below them; below others, a directory is
/// opened by its path from the root. So the depth of a tree costs neither stack nor descriptors.
final class PairedWalk<Old: OldTree>: Sendable {
    typealias Findings = WalkFindings

    private let old: Old
    private let new: ComparedTree
    private let dirty: DirtyInodes?
    private let trust: InodeTrust
    private let onEntry: @Sendable () throws -> Void

    init(
        old: Old, new: ComparedTree, dirty: DirtyInodes?, trust: InodeTrust,
        onEntry: @escaping @Sendable () throws -> Void
    ) {
        self.old = old
        self.new = new
        self.dirty = dirty
        self.trust = trust
        self.onEntry = onEntry
    }

    /// Walks both trees.
    /// - Parameters:
    ///   - threads: that walk; more than one only pays where there is much to look at.
    ///   - comparison: makes the comparison of one thread.
    func run(threads: Int, comparison: @Sendable () -> FileComparison<Old>) throws -> Findings {
        let here = BytePath.current
        let before = try old.rootStatus()
        let after = try attempt("look at", here) { () throws(Errno) in try new.root.status() }
        // Of two descriptors each, for all threads together.
        let room = Room(16)
        let compared = ComparedPairs(old.hasTrueInodes)
        let first = Walker(self, comparison(), room, compared)
        let roots = Directories(
            old: try old.openRoot(), new: try ComparedTree.open(here, in: new.root, path: here))
        if let oldRoot = roots.old, !isSame(before, after),
            try first.comparison.differs(
                .init(directory: oldRoot, name: here, status: before),
                .init(directory: roots.new.fd, name: here, status: after), path: here)
        {
            first.findings.changes[here] = Change(kind: .modified, path: here, type: .directory)
        }
        let work = WalkQueue(
            Task(
                path: .empty, name: here, parents: OpenParents.make(roots, room), before: before, after: after
            )
        )

        var others: [(walker: Walker, thread: WorkerThread)] = []
        for _ in 1..<max(threads, 1) {
            let walker = Walker(self, comparison(), room, compared)
            let handover = Handover(walker)
            // Fewer threads find the same.
            guard let thread = try? WorkerThread(name: "varve-walk", { handover.take()?.run(work) }) else {
                break
            }
            others.append((walker, thread))
        }
        first.run(work)
        for other in others { other.thread.join() }
        try work.check()
        var findings = first.findings
        for other in others { findings.merge(other.walker.findings) }
        return findings
    }

    /// Whether the inodes are one and the same file, unchanged in itself. For a directory this says nothing of what
    /// lies below it.
    fileprivate func isSame(_ a: FileStatus, _ b: FileStatus) -> Bool {
        guard a.inode == b.inode else { return false }
        if let dirty { return !dirty.contains(b.inode) }
        switch trust {
        case .none: return false
        case .unchangedBefore(let moment):
            return a.changeTime == b.changeTime && b.changeTime < moment && a.mode == b.mode
        }
    }

    /// A directory on both sides, or on the new one alone.
    fileprivate struct Directories: Sendable {
        var old: Old.Directory?
        var new: SharedDescriptor
    }

    /// Directories that stay open as long as something below them is to be looked into.
    fileprivate final class OpenParents: Sendable {
        let directories: Directories
        private let room: Room

        private init(_ directories: Directories, _ room: Room) {
            self.directories = directories
            self.room = room
        }

        /// Nil if there are too many already.
        static func make(_ directories: Directories, _ room: Room) -> OpenParents? {
            room.take() ? OpenParents(directories, room) : nil
        }

        deinit { room.giveBack() }
    }

    /// A directory of the new tree that is still to be looked into.
    fileprivate struct Task: Sendable {
        var path: BytePath
        /// In `parents`; the directory itself is opened when its turn comes.
        var name: BytePath
        /// Nil if they are not open any more.
        var parents: OpenParents?
        /// Nil if the old tree has no directory there.
        var before: FileStatus?
        var after: FileStatus
    }

    private struct Item {
        var name: BytePath
        var inOld: Bool
        var inNew: Bool
    }

    /// What one thread does, and what it has found.
    fileprivate final class Walker: @unchecked Sendable {
        private let walk: PairedWalk
        let comparison: FileComparison<Old>
        private let room: Room
        private let compared: ComparedPairs
        var findings = Findings()

        init(
            _ walk: PairedWalk, _ comparison: FileComparison<Old>, _ room: Room, _ compared: ComparedPairs
        ) {
            self.walk = walk
            self.room = room
            self.compared = compared
            self.comparison = comparison
        }

        func run(_ queue: WalkQueue<Task>) {
            while let task = queue.next() {
                do {
                    queue.finish(adding: try process(task))
                } catch {
                    queue.fail(error)
                }
            }
        }

        private func process(_ task: Task) throws -> [Task] {
            let parents = task.parents?.directories
            var here = Directories(
                old: nil,
                new: try parents.map { (parents) throws(LayerError) in
                    try ComparedTree.open(task.name, in: parents.new.fd, path: task.path)
                } ?? walk.new.open(at: task.path))
            let items: [Item]
            if let before = task.before {
                let directory =
                    try parents?.old.map { (parent) throws(LayerError) in
                        try walk.old.open(task.name, in: parent, path: task.path)
                    } ?? walk.old.open(at: task.path)
                here.old = directory
                if let dirty = walk.dirty, walk.isSame(before, task.after) {
                    // The directory itself has the same names; only those on the way to something dirty matter.
                    items = (dirty.leads[task.after.inode] ?? []).map {
                        Item(name: $0, inOld: true, inNew: true)
                    }
                } else {
                    items = try list(directory, here.new, task.path)
                }
            } else {
                items = try list(nil, here.new, task.path)
            }
            var below: [Task] = []
            for item in items {
                try walk.onEntry()
                if let next = try visit(item, in: here, task.path) { below.append(next) }
            }
            if !below.isEmpty, let open = OpenParents.make(here, room) {
                for index in below.indices { below[index].parents = open }
            }
            return below
        }

        /// Compares one name; returns the directory that is to be looked into next, if it is one.
        private func visit(_ item: Item, in here: Directories, _ directoryPath: BytePath) throws -> Task? {
            let path = directoryPath.appending(item.name)
            var before: FileStatus?
            if item.inOld, let directory = here.old {
                before = try walk.old.status(of: item.name, in: directory, path: path)
            }
            var after: FileStatus?
            if item.inNew { after = try walk.new.status(of: item.name, in: here.new.fd, path: path) }

            guard let after else {
                if let before { findings.note(.deleted, path, in: directoryPath, before.type ?? .regular) }
                return nil
            }
            let type = after.type ?? .regular
            let inside = Task(path: path, name: item.name, parents: nil, before: nil, after: after)
            guard let before, let oldDirectory = here.old else {
                findings.note(.added, path, in: directoryPath, type)
                if after.isDirectory { return findings.isTooDeep(path) ? nil : inside }
                if after.linkCount > 1 { findings.links.noteNew(path, after) }
                return nil
            }

            let same = walk.isSame(before, after)
            if !same {
                let isModified =
                    try before.type != after.type
                    || compared.differs(before, after) {
                        try comparison.differs(
                            .init(directory: oldDirectory, name: item.name, status: before),
                            .init(directory: here.new.fd, name: item.name, status: after), path: path)
                    }
                if isModified { findings.note(.modified, path, in: directoryPath, type) }
            }
            if after.isDirectory {
                guard before.isDirectory else { return findings.isTooDeep(path) ? nil : inside }
                if same, let dirty = walk.dirty, dirty.leads[after.inode] == nil { return nil }
                var both = inside
                both.before = before
                return both
            }
            // In a whole walk every name is met, changed or not; in a pruned one, those of clean inodes are found by
            // the names of the groups that they belong to.
            if !same || walk.dirty == nil {
                if after.linkCount > 1 { findings.links.noteNew(path, after) }
                if !before.isDirectory, before.linkCount > 1 || after.linkCount > 1 {
                    findings.links.notePair(path, old: before, new: after)
                }
            }
            return nil
        }

        /// The names of both directories, less those that are one clean inode on both sides.
        private func list(
            _ oldDirectory: Old.Directory?, _ newDirectory: SharedDescriptor, _ path: BytePath
        ) throws -> [Item] {
            let after = try attempt("list the directory", path) { () throws(Errno) in
                try newDirectory.fd.entries()
            }
            guard let oldDirectory else {
                return after.map { Item(name: $0.name, inOld: false, inNew: true) }
            }
            let before = try walk.old.entries(of: oldDirectory, path: path)
            var remaining: [BytePath: DirectoryEntry] = [:]
            remaining.reserveCapacity(before.count)
            for entry in before { remaining[entry.name] = entry }
            var items: [Item] = []
            for entry in after {
                guard let other = remaining.removeValue(forKey: entry.name) else {
                    items.append(Item(name: entry.name, inOld: false, inNew: true))
                    continue
                }
                // A directory's number may be that of a nested subvolume's stub: it is looked at. Anything else that
                // has one clean inode on both sides is the same.
                if let dirty = walk.dirty, entry.inode == other.inode, let type = entry.type,
                    type != .directory,
                    type == other.type, !dirty.contains(entry.inode)
                {
                    continue
                }
                items.append(Item(name: entry.name, inOld: true, inNew: true))
            }
            for name in remaining.keys { items.append(Item(name: name, inOld: true, inNew: false)) }
            return items
        }
    }
}

extension WalkFindings {
    fileprivate mutating func merge(_ other: Self) {
        // Each path is met by one thread.
        changes.merge(other.changes) { mine, _ in mine }
        links.merge(other.links)
        tooDeep = [tooDeep, other.tooDeep].compactMap(\.self).min()
    }
}

/// Counts what may be open at the same time.
private final class Room: Sendable {
    private let left: Atomic<Int>

    init(_ count: Int) { left = Atomic(count) }

    /// False if nothing is left.
    func take() -> Bool {
        if left.wrappingSubtract(1, ordering: .relaxed).newValue >= 0 { return true }
        giveBack()
        return false
    }

    func giveBack() { left.wrappingAdd(1, ordering: .relaxed) }
}

/// The directories that are still to be looked into, for all threads of a walk. The last one in is the first one out,
/// so that few are open at a time.
private final class WalkQueue<Task: Sendable>: @unchecked Sendable {
    private let monitor = Monitor()
    private let hasWork = Condition()
    /// All guarded by the monitor.
    private var tasks: [Task]
    private var busy = 0
    private var failure: (any Error)?

    init(_ first: Task) { tasks = [first] }

    /// The next directory; nil when all is done, or failed.
    func next() -> Task? {
        monitor.locked {
            while failure == nil {
                if let task = tasks.popLast() {
                    busy += 1
                    return task
                }
                if busy == 0 { return nil }
                monitor.wait(for: hasWork)
            }
            return nil
        }
    }

    func finish(adding more: [Task]) {
        monitor.locked {
            busy -= 1
            tasks.append(contentsOf: more)
            if busy == 0 || !more.isEmpty { hasWork.broadcast() }
        }
    }

    func fail(_ error: any Error) {
        monitor.locked {
            busy -= 1
            if failure == nil { failure = error }
            tasks.removeAll()
            hasWork.broadcast()
        }
    }

    /// Throws what ended the walk early.
    func check() throws {
        if let failure = monitor.locked({ failure }) { throw failure }
    }
}
