import VarveSystem
import SystemPackage

/// The old side of a comparison: a tree of files, or what was written down of one.
protocol OldTree: Sendable {
    /// A directory of the tree, for as long as something below it is still to do.
    associatedtype Directory: Sendable

    func rootStatus() throws(LayerError) -> FileStatus
    func openRoot() throws(LayerError) -> Directory
    func open(_ name: BytePath, in directory: Directory, path: BytePath) throws(LayerError) -> Directory
    /// The directory at `path` below the root.
    func open(at path: BytePath) throws(LayerError) -> Directory
    func entries(of directory: Directory, path: BytePath) throws(LayerError) -> [DirectoryEntry]

    /// What `name` in `directory` is; nil if there is nothing that counts. `.` is the directory itself.
    func status(of name: BytePath, in directory: Directory, path: BytePath) throws(LayerError) -> FileStatus?
    func target(of side: OldSide<Self>, path: BytePath) throws(LayerError) -> BytePath
    /// In byte order of their names. Nil if the tree does not know.
    func attributes(of side: OldSide<Self>, path: BytePath) throws(LayerError) -> [ExtendedAttribute]?

    /// Whether a time of this tree and one of the new tree are the same, as exactly as this tree knows.
    func isSame(_ old: Timestamp, _ new: Timestamp) -> Bool
    /// Whether names with the same device and inode number are one file, so that what is found of one holds for all.
    var hasTrueInodes: Bool { get }
    /// Whether it knows the numbers of device nodes.
    var knowsDeviceNumbers: Bool { get }
    /// Whether a file of the same type may differ in something that the tree does not know, so that it counts as
    /// changed.
    func mayDifferUnseen(
        _ old: OldSide<Self>, _ new: NewSide, path: BytePath
    ) throws(LayerError) -> Bool
}

/// A name in a directory of the old tree, with what the tree says of it.
struct OldSide<Tree: OldTree> {
    var directory: Tree.Directory
    var name: BytePath
    var status: FileStatus
}

/// A name in a directory of the new tree, with what stat said of it.
struct NewSide {
    var directory: FileDescriptor
    var name: BytePath
    var status: FileStatus
}

/// What is asked of a side is said of the file that was looked at, whatever has its name by now.
extension NewSide {
    func target(_ path: BytePath) throws(LayerError) -> BytePath {
        try attempt("read the link", path) { () throws(Errno) in
            racePoint("compare-link")
            return try directory.readSymbolicLink(name, expecting: status)
        }
    }

    func attributes(_ path: BytePath) throws(LayerError) -> [ExtendedAttribute] {
        try attempt("read the attributes of", path) { () throws(Errno) in
            racePoint("compare-attributes")
            do throws(Errno) {
                return try directory.extendedAttributes(of: name, expecting: status)
            } catch .notSupported {
                return []
            }
        }
    }

    /// The content of the regular file; nothing else is opened.
    func open(_ path: BytePath) throws(LayerError) -> OwnedDescriptor {
        try directory.openFileInTree(name, expecting: status, path, keepsAccessTime: true)
    }
}

extension ComparedTree: OldTree {
    func rootStatus() throws(LayerError) -> FileStatus {
        try attempt("look at", .current) { () throws(Errno) in try root.status() }
    }

    func openRoot() throws(LayerError) -> SharedDescriptor {
        try Self.open(.current, in: root, path: .current)
    }

    func open(_ name: BytePath, in directory: SharedDescriptor, path: BytePath) throws(LayerError)
        -> SharedDescriptor
    {
        try Self.open(name, in: directory.fd, path: path)
    }

    func entries(of directory: SharedDescriptor, path: BytePath) throws(LayerError) -> [DirectoryEntry] {
        try attempt("list the directory", path) { () throws(Errno) in try directory.fd.entries() }
    }

    func status(of name: BytePath, in directory: SharedDescriptor, path: BytePath) throws(LayerError)
        -> FileStatus?
    {
        try status(of: name, in: directory.fd, path: path)
    }

    func target(of side: OldSide<Self>, path: BytePath) throws(LayerError) -> BytePath {
        try opened(side).target(path)
    }

    func attributes(of side: OldSide<Self>, path: BytePath) throws(LayerError) -> [ExtendedAttribute]? {
        try opened(side).attributes(path)
    }

    private func opened(_ side: OldSide<Self>) -> NewSide {
        NewSide(directory: side.directory.fd, name: side.name, status: side.status)
    }

    func isSame(_ old: Timestamp, _ new: Timestamp) -> Bool { old == new }
    var hasTrueInodes: Bool { true }
    var knowsDeviceNumbers: Bool { true }
    func mayDifferUnseen(_ old: OldSide<Self>, _ new: NewSide, path: BytePath) -> Bool { false }
}
