package import VarveOCI
package import VarveSystem
package import SystemPackage

extension RecordedTree {
    /// Records a tree as it is now.
    ///
    /// Names, attributes and times are read back rather than taken from what was asked for: change times, the times of
    /// directories and what the kernel adds by itself (inherited ACLs, security labels) are final only when the last
    /// layer is done.
    ///
    /// - Parameters:
    ///   - root: the root directory of the tree, open for reading; nothing may change in it meanwhile.
    ///   - known: the digest of a file's content, where it is known already; a file without one is read.
    ///   - onEntry: called for each entry; throws to stop.
    /// - Throws: `LayerError`, or what `onEntry` throws.
    package static func scan(
        _ root: FileDescriptor, known: (FileStatus) -> Digest? = { _ in nil },
        onEntry: () throws -> Void = {}
    ) throws -> RecordedTree {
        let tree = try ComparedTree(root: root)
        let hashing = FileHashing()
        let linked = LinkedDigests()
        func node(_ name: BytePath, _ status: FileStatus, _ side: NewSide, _ path: BytePath) throws -> Node {
            var node = Node(name: name, status: status)
            node.attributes = try side.attributes(path)
            if status.isSymbolicLink { node.target = try side.target(path) }
            if status.isRegular {
                node.digest =
                    try known(status)
                    ?? linked.digest(status) { () throws(LayerError) in
                        try hashing.digest(of: side, path, isStopped: { (try? onEntry()) == nil })
                    }
            }
            return node
        }

        let top = try tree.openRoot()
        let status = try tree.rootStatus()
        var record = RecordedTree(
            root: try node(
                .empty, status, NewSide(directory: top.fd, name: .current, status: status), .current),
            knowledge: .everything(trustedBefore: Timestamp(seconds: .min)))
        let way = try attempt("look at", .current) { () throws(Errno) in
            try DirectoryDescent(top, resolve: .noCrossing)
        }
        /// The path of the current directory. Kept beside the way, which makes its own anew each time.
        var here = BytePath.empty
        /// Records all that is in the current directory, and says which directories are.
        func list(_ parent: Int) throws -> Frame {
            var below: [(name: BytePath, node: Int)] = []
            for entry in try tree.entries(of: way.current, path: here).sorted(by: { $0.name < $1.name }) {
                try onEntry()
                let path = here.appending(entry.name)
                guard let status = try tree.status(of: entry.name, in: way.current, path: path) else {
                    continue
                }
                let side = NewSide(directory: way.current.fd, name: entry.name, status: status)
                let made = record.append(try node(entry.name, status, side, path), to: parent)
                if status.isDirectory { below.append((entry.name, made)) }
            }
            return Frame(directories: below.reversed())
        }
        var frames = [try list(Self.root)]
        while let last = frames.indices.last {
            if let next = frames[last].directories.popLast() {
                try enter(next.name, way, here)
                here = here.appending(next.name)
                frames.append(try list(next.node))
            } else {
                frames.removeLast()
                _ = try attempt("go back from", here) { () throws(Errno) in try way.leave() }
                here = here.parent
            }
        }
        return record
    }

    private static func enter(_ name: BytePath, _ way: DirectoryDescent, _ here: BytePath) throws(LayerError)
    {
        racePoint("enter-directory")
        do throws(Errno) {
            try way.enter(name)
        } catch .improperLink {
            throw .mounted(on: name, in: way.current.fd)
        } catch {
            throw .system(operation: "open the directory", path: here.appending(name), errno: error)
        }
    }

    /// A directory of the way.
    private struct Frame {
        /// Those in it that are still to be looked into, the last one first.
        var directories: [(name: BytePath, node: Int)]
    }
}
