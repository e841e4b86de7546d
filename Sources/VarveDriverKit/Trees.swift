public import VarveLayers
public import VarveStore
public import VarveSystem
import SystemPackage

/// Trees in plain directories, for drivers that keep them there.
///
/// All of it takes names as bytes, follows no symbolic link inside a tree, and does not look behind mounts.
public enum Trees {
    /// Opens a directory.
    public static func open(_ path: BytePath) throws -> SharedDescriptor {
        SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(path))
    }

    /// Makes an empty root file system: a directory of mode 0755 whose times are zero, which is what a root directory is like
    /// that no layer describes.
    public static func createRoot(_ path: BytePath) throws -> SharedDescriptor {
        let here = FileDescriptor.workingDirectory
        try here.makeDirectory(path, mode: 0o755)
        try here.setTimes(of: path, access: .epoch, modification: .epoch)
        return try open(path)
    }

    /// What has to change in `old` to make it equal to `new`. Every file is read: nothing is asked of the file system but what
    /// any of them can tell.
    ///
    /// - Parameters:
    ///   - old: the tree as it was.
    ///   - new: the tree as it is.
    ///   - onEntry: called for each entry that is looked at, from several threads; it throws to stop.
    public static func compare(
        old: SharedDescriptor, new: SharedDescriptor, onEntry: @escaping @Sendable () throws -> Void = {}
    ) throws -> DeltaResult {
        try Delta.compareWhole(old: old.fd, new: new.fd, onEntry: onEntry)
    }

    /// Deletes a directory with all that is in it, whatever its permissions are. Nothing happens if nothing is there.
    public static func remove(_ path: BytePath) throws {
        let parent = try open(path.parent.isEmpty ? "." : path.parent)
        do {
            try TreeRemoval.removeTree(path.lastComponent, in: parent.fd, path: path)
        } catch LayerError.system(_, _, .noSuchFileOrDirectory) {}
    }
}

extension BundleFile {
    /// Writes the file into the directory of a bundle, and to the disk.
    public func write(into bundle: SharedDescriptor) throws {
        try bundle.fd.writeFileDurably(name, contents)
    }
}

extension RepackContext {
    /// Unpacks the image that the bundle came from once more: what a driver without snapshots compares the bundle with.
    ///
    /// - Parameters:
    ///   - path: where the new bundle is to be; nothing is there yet.
    ///   - driver: what unpacks the image.
    public func unpackImage(into path: BytePath, with driver: some StorageDriver) throws {
        guard let image else {
            throw VarveError(
                .unsupported,
                "the driver \"\(driver.name)\" finds what changed in \"\(bundle)\" only while it is repacked, as it needs the image"
            )
        }
        _ = try Unpacking(driver: driver, cancellation: cancellation).unpack(image, into: path)
    }
}
