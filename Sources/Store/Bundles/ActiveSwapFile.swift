import Btrfs
import SystemCalls
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
        -> StoreError?
    {
        switch error.errno {
        case .textFileBusy:
            let file = find(in: subvolume)
            let what = file.map { "\"\($0)\"" } ?? "a file in \"\(path)\""
            let remedy = file.map { "swapoff \($0)" } ?? "swapoff --all"
            return StoreError(
                .unsupported,
                "\(what) is a swap file in use, and btrfs takes no snapshot of \"\(path)\" meanwhile; turn it off: \(remedy)"
            )
        default:
            return nil
        }
    }

    /// The path of a swap file in use that lies directly in the subvolume (proc_swaps(5)); nil if none can be seen.
    static func find(in subvolume: FileDescriptor) -> BytePath? {
        let here = FileDescriptor.workingDirectory
        guard let device = try? subvolume.status().device,
            let list = try? here.readFile("/proc/swaps", limit: 1 << 20)
        else { return nil }
        for line in list.split(separator: UInt8(ascii: "\n")).dropFirst() {
            let field = line.prefix { $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\t") }
            guard let path = BytePath(unescapingOctal: field), let status = try? here.status(of: path),
                status.isRegular, status.device == device
            else { continue }
            return path
        }
        return nil
    }
}
