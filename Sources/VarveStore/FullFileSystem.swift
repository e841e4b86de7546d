import VarveBtrfs
import VarveOCI
import VarveSystem
import SystemPackage

/// What is full, and where: a disk, its metadata or a quota.
enum FullFileSystem {
    /// What helps against ENOSPC or EDQUOT on the file system that holds `path`, or is to hold it.
    static func remedy(_ errno: Errno, near path: BytePath) -> VarveError.Remedy {
        guard let point = MountTable.point(near: path) else {
            return errno == .noSpace ? .freeSpace(on: nil) : .raiseQuota(on: nil)
        }
        var (isBtrfs, isMetadata) = (false, false)
        if let opened = try? FileDescriptor.workingDirectory.open(point, [.directory]) {
            isBtrfs = (try? opened.fd.isBtrfs()) == true
            isMetadata = isBtrfs && (try? opened.fd.hasRoomForDataAlone()) == true
        }
        if errno != .noSpace { return isBtrfs ? .raiseQuotaGroup(on: point) : .raiseQuota(on: point) }
        return isMetadata ? .freeMetadata(on: point) : .freeSpace(on: point)
    }

    /// Runs `body`, and names the place that the user gave, and its mount, if it fails because something is full: what is built has
    /// names of its own, which nobody knows.
    ///
    /// - Parameters:
    ///   - operation: what is being done, as it reads on from "cannot": "unpack to".
    ///   - place: an existing path, or one that is yet to be made.
    static func naming<R>(_ place: BytePath, _ operation: String, _ body: () throws -> R) throws -> R {
        do {
            return try body()
        } catch {
            var full = VarveError(converting: error)
            // What is said of an image layout says where that is.
            guard full.code == .noSpace, full.subject != place, !(full.cause is OCIError) else { throw error }
            full.reason = "cannot \(operation) \"\(place)\": \(full.reason)"
            full.subject = place
            switch full.remedy {
            case .freeSpace(on: nil), .freeMetadata(on: nil):
                full.remedy = remedy(.noSpace, near: absolute(place))
            case .raiseQuota(on: nil), .raiseQuotaGroup(on: nil):
                full.remedy = remedy(.diskQuotaExceeded, near: absolute(place))
            default: break
            }
            throw full
        }
    }

    private static func absolute(_ path: BytePath) -> BytePath {
        guard !path.isAbsolute,
            let here = try? FileDescriptor.workingDirectory.readSymbolicLink("/proc/self/cwd")
        else { return path }
        return here.appending(path)
    }
}
