import VarveSystem
import SystemPackage

/// A file or directory that is about to be made by a path, so that it can be taken away if that fails.
struct NewFileOrDirectory {
    private let parent: SharedDescriptor
    private let name: BytePath

    /// Nil where something is there already, or another user could put something else in its place.
    init?(at path: BytePath) {
        guard let parent = try? Place.directory(path.directory, .own) else { return nil }
        self.parent = SharedDescriptor(parent)
        name = path.lastComponent
        guard (try? self.parent.fd.statusIfPresent(of: name)) == .some(nil) else { return nil }
    }

    func remove() { try? PartialBundleRemoval.removeEntry(name, in: parent.fd) }
}
