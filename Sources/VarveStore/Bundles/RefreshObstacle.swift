import VarveBtrfs
import VarveSystem
import SystemPackage

/// What forbids to refresh a bundle. A refresh ends with new files in the bundle, after the image is tagged: what forbids them is
/// looked for first.
struct RefreshObstacle {
    private let bundle: BytePath

    init(_ bundle: BytePath) { self.bundle = bundle }

    /// Throws if something forbids to replace `umoci.json` or to take away the files that say what the tree was so far.
    func check() throws {
        let directory: SharedDescriptor
        do throws(PlaceError) { directory = SharedDescriptor(try Place.directory(bundle, .safeLinks)) } catch
        {
            throw VarveError(error, "open the bundle", bundle)
        }
        try check(.current, in: directory.fd, bundle)
        do throws(Errno) {
            try directory.fd.checkWritable(.current)
        } catch .readOnlyFileSystem {
            throw VarveError(
                .failed,
                "the bundle \"\(bundle)\" is read-only and cannot be refreshed", subject: bundle,
                remedy: .makeWritable(bundle)
            )
        } catch {
            throw VarveError.system("refresh the bundle", bundle, error)
        }
        let mounts = Set(
            ((try? directory.fd.path()).flatMap { try? MountTable.mounts(below: $0) } ?? []).map(\.point))
        let place = try? directory.fd.path()
        let names = try attempt("list the directory", bundle) { () throws(Errno) in
            try directory.fd.entries().map(\.name)
        }
        for name in names where name == BundleMetadata.fileName || BundleMetadata.isState(name) {
            try check(name, in: directory.fd, bundle.appending(name))
            if let point = place?.appending(name), mounts.contains(point) {
                throw VarveError(
                    .unsupported,
                    "the bundle \"\(bundle)\" cannot be refreshed: something is mounted at \"\(point)\"",
                    subject: bundle, remedy: .unmount(point, recursively: false))
            }
        }
    }

    /// Throws if flags of chattr(1) protect a file.
    ///
    /// - Parameter path: of it, for the message.
    func check(_ name: BytePath, in directory: FileDescriptor, _ path: BytePath) throws {
        if let file = ProtectedFile(name, in: directory, path: path) {
            throw VarveError.protected("the bundle \"\(bundle)\" cannot be refreshed", bundle, by: file)
        }
    }
}
