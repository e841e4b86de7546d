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
    func target(of name: BytePath, in directory: Directory, path: BytePath) throws(LayerError) -> BytePath
    /// In byte order of their names. Nil if the tree does not know.
    func attributes(of name: BytePath, in directory: Directory, path: BytePath) throws(LayerError)
        -> [ExtendedAttribute]?

    /// Whether a time of this tree and one of the new tree are the same, as exactly as this tree knows.
    func isSame(_ old: Timestamp, _ new: Timestamp) -> Bool
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

extension NewSide {
    func target(_ path: BytePath) throws(LayerError) -> BytePath {
        try attempt("read the link", path) { () throws(Errno) in try directory.readSymbolicLink(name) }
    }

    func attributes(_ path: BytePath) throws(LayerError) -> [ExtendedAttribute] {
        try attempt("read the attributes of", path) { () throws(Errno) in
            do throws(Errno) {
                return try directory.extendedAttributes(of: name)
            } catch .notSupported {
                return []
            }
        }
    }

    /// The content of the regular file that was looked at; nothing else is opened, whatever has its name by now.
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

    func target(of name: BytePath, in directory: SharedDescriptor, path: BytePath) throws(LayerError)
        -> BytePath
    {
        try attempt("read the link", path) { () throws(Errno) in try directory.fd.readSymbolicLink(name) }
    }

    func attributes(of name: BytePath, in directory: SharedDescriptor, path: BytePath) throws(LayerError)
        -> [ExtendedAttribute]?
    {
        try attempt("read the attributes of", path) { () throws(Errno) in
            do throws(Errno) {
                return try directory.fd.extendedAttributes(of: name)
            } catch .notSupported {
                return []
            }
        }
    }

    func isSame(_ old: Timestamp, _ new: Timestamp) -> Bool { old == new }
    var knowsDeviceNumbers: Bool { true }
    func mayDifferUnseen(_ old: OldSide<Self>, _ new: NewSide, path: BytePath) -> Bool { false }
}
