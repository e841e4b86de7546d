import VarveBtrfs
import VarveSystem
import SystemPackage

/// A swap file that is in use: the kernel takes no snapshot of the subvolume in which it lies (ETXTBSY, `create_snapshot`,
/// fs/btrfs/ioctl.c) and does not delete that subvolume (EPERM, `btrfs_delete_subvolume`, fs/btrfs/inode.c).
enum ActiveSwapFile {
    /// What to say when btrfs refused an operation on a subvolume because of a swap file; nil if that is not why.
    ///
    /// - Parameters:
    ///   - subvolume: the root directory of the subvolume.
    ///   - path: of that directory, for the message where the file itself is not found.
    static func explanation(of error: BtrfsError, in subvolume: FileDescriptor, _ path: BytePath)
        -> VarveError?
    {
        switch error.errno {
        case .textFileBusy:
            let file = find(in: subvolume)
            let what = file.map { "\"\($0)\"" } ?? "a file in \"\(path)\""
            return VarveError(
                .unsupported,
                "\(what) is a swap file in use, and btrfs takes no snapshot of \"\(path)\" meanwhile",
                subject: file ?? path, remedy: .turnOffSwap(file)
            )
        default:
            return nil
        }
    }

    /// The path of a swap file in use that lies directly in the subvolume; nil if none can be seen.
    private static func find(in subvolume: FileDescriptor) -> BytePath? {
        guard let device = try? subvolume.status().device else { return nil }
        return (try? all())?.first { path in
            guard let status = try? FileDescriptor.workingDirectory.status(of: path) else { return false }
            return status.isRegular && status.device == device
        }
    }

    /// The absolute paths of all swap files and devices in use (proc_swaps(5)).
    static func all() throws(Errno) -> [BytePath] {
        let list: [UInt8]
        do throws(Errno) {
            list = try FileDescriptor.workingDirectory.readFile("/proc/swaps", limit: 1 << 20)
        } catch .noSuchFileOrDirectory {
            // A kernel without swap.
            return []
        }
        return list.split(separator: UInt8(ascii: "\n")).dropFirst().compactMap { line in
            BytePath(unescapingOctal: line.prefix { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\t") })
        }
    }
}
