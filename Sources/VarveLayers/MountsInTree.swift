package import VarveSystem
package import SystemPackage

// A tree of ours is what lies on one mount. Device numbers do not tell mounts apart: a bind mount of a directory or of a single file
// has that of the file system that it shows. Directories are opened with RESOLVE_NO_XDEV (openat2(2)), which fails with EXDEV
// where the look-up would enter a mount, on the last component too (`traverse_mounts`, fs/namei.c); names are looked at with
// statx(2), which gives the number of the mount. Both are part of the look-up itself, so a mount that appears while a tree is
// walked is met in the same way, or hides nothing of what is open already. A nested subvolume of btrfs is no mount.

extension FileDescriptor {
    /// Opens `path`, relative to this directory of a tree, without entering a mount.
    ///
    /// - Parameters:
    ///   - crossesMounts: enters them all the same.
    ///   - shown: the path that an error names: `path` in the tree.
    func openInTree(
        _ path: BytePath, _ flags: OpenFlags, resolve: Resolution = [], crossesMounts: Bool = false,
        _ operation: @autoclosure () -> String, _ shown: @autoclosure () -> BytePath
    ) throws(LayerError) -> OwnedDescriptor {
        do throws(Errno) {
            return try open(path, flags, resolve: crossesMounts ? resolve : resolve.union(.noCrossing))
        } catch .improperLink {
            throw .mounted(on: path, in: self)
        } catch {
            throw .system(operation: operation(), path: shown(), errno: error)
        }
    }

    /// Opens the regular file `name` in this directory of a tree for reading, without entering a mount (`openRegularFile`).
    ///
    /// - Parameters:
    ///   - path: of the file in the tree, for errors.
    ///   - crossesMounts: reads what is mounted on it.
    func openFileInTree(
        _ name: BytePath, expecting status: FileStatus, _ path: BytePath, crossesMounts: Bool = false,
        keepsAccessTime: Bool = false
    ) throws(LayerError) -> OwnedDescriptor {
        do throws(Errno) {
            return try openRegularFile(
                name, expecting: status, resolve: crossesMounts ? [] : .noCrossing,
                keepsAccessTime: keepsAccessTime)
        } catch .improperLink {
            throw .mounted(on: name, in: self)
        } catch {
            throw .system(operation: "open", path: path, errno: error)
        }
    }
}

extension LayerError {
    /// The error for a path, relative to a directory of a tree, that leads to a mount point.
    package static func mounted(on path: BytePath, in directory: FileDescriptor) -> LayerError {
        var place = BytePath.empty
        for component in path.components {
            place = place.appending(component)
            do throws(Errno) {
                _ = try directory.open(place, [.path, .noFollow], resolve: .noCrossing)
            } catch .improperLink {
                break
            } catch {
                // Gone meanwhile, or too long for one call: the next one, or the whole path.
            }
        }
        return .mountPoint(path: ((try? directory.path()) ?? .empty).appending(place))
    }
}
