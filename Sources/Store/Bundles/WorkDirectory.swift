import Layers
import SystemCalls
import SystemPackage

/// A directory beside a bundle, in which it is built or deleted. It goes with this value unless it was moved to its
/// place, and what a dead process left goes with the next one that is made there: whoever is at work holds a lock on it
/// (flock(2)).
struct WorkDirectory: ~Copyable {
    private static let prefix: BytePath = ".varve-work-"

    let name: BytePath
    let opened: SharedDescriptor
    private let parent: SharedDescriptor
    private var isDone = false

    /// Makes one in `parent`, with mode 0700.
    init(in parent: SharedDescriptor, path: BytePath) throws(StoreError) {
        Self.clean(parent)
        for _ in 0..<100 {
            let name = Self.prefix.appendingBytes(BytePath(randomName()))
            let opened = try attempt("make a work directory beside", path) {
                () throws(Errno) -> SharedDescriptor? in
                try parent.fd.makeDirectory(name, mode: 0o700)
                guard let opened = try? parent.fd.openDirectory(name) else { return nil }
                let shared = SharedDescriptor(opened)
                // Somebody who cleans up may hold it just now, and take it away: another name then.
                guard try shared.fd.tryLock(.exclusive), try parent.fd.statusIfPresent(of: name) != nil else {
                    return nil
                }
                return shared
            }
            guard let opened else { continue }
            self.name = name
            self.opened = opened
            self.parent = parent
            return
        }
        throw StoreError(.failed, "cannot make a work directory beside \"\(path)\"; try again")
    }

    /// Renames the directory to where it is seen. It is then whoever's place that is.
    mutating func move(to target: FileDescriptor, _ newName: BytePath, replacing: Bool = false)
        throws(Errno)
    {
        try parent.fd.rename(name, to: target, newName, replacing: replacing)
        isDone = true
    }

    /// Deletes it with all that is in it.
    mutating func remove(_ path: BytePath) throws {
        isDone = true
        try TreeRemoval.removeTree(name, in: parent.fd, path: path)
    }

    deinit {
        if !isDone { try? TreeRemoval.removeTree(name, in: parent.fd, path: name) }
    }

    /// Deletes what processes that are gone left in `parent`.
    private static func clean(_ parent: SharedDescriptor) {
        guard let entries = try? parent.fd.entries() else { return }
        for entry in entries where entry.name.hasPrefix(prefix.bytes) {
            guard let opened = try? parent.fd.openDirectory(entry.name),
                (try? opened.fd.tryLock(.exclusive)) == true
            else { continue }
            try? TreeRemoval.removeTree(entry.name, in: parent.fd, path: entry.name)
        }
    }
}
