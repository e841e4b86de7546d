import CLinux
import Glibc
package import SystemPackage

/// A file that the kernel shows as a block device, loop(4). It is taken apart when this value goes away, or, while a
/// file system on it is mounted, when that is unmounted.
package struct LoopDevice: ~Copyable, Sendable {
    private let device: OwnedDescriptor
    /// `/dev/loopN`.
    package let path: BytePath
    package var fd: FileDescriptor { device.fd }

    /// Attaches `image` to a free device (`LOOP_CTL_GET_FREE`, `LOOP_CONFIGURE` with `LO_FLAGS_AUTOCLEAR`; Linux 5.8).
    /// The descriptor is not needed afterwards. EPERM or EACCES without `CAP_SYS_ADMIN`; ENOENT where the kernel has
    /// no loop driver or a container hides `/dev/loop-control`.
    package init(image: FileDescriptor, readOnly: Bool = false) throws(Errno) {
        var number: CInt = 0
        let fd = unsafe varve_loop_attach(image.rawValue, readOnly ? 1 : 0, &number)
        guard fd >= 0 else { throw Errno(rawValue: errno) }
        device = OwnedDescriptor(owning: FileDescriptor(rawValue: fd))
        path = BytePath("/dev/loop\(number)")
    }

    /// The one device that shows `image`: one that does already, or a new one.
    package static func showing(_ image: FileDescriptor) throws(Errno) -> LoopDevice {
        if let attached = try attached(to: image) { return attached }
        return try LoopDevice(image: image)
    }

    fileprivate init(_ device: consuming OwnedDescriptor, _ path: BytePath) {
        self.device = device
        self.path = path
    }

    /// The device that shows `image` already, for whichever mount name space; nil if none does. It is open, so that it goes on showing that.
    package static func attached(to image: FileDescriptor) throws(Errno) -> LoopDevice? {
        let status = try image.status()
        let path = try? image.path()
        for attached in try AttachedFile.all() {
            if let device = try attached.device(if: status, at: path) { return device }
        }
        return nil
    }
}

extension AttachedFile {
    /// The device, open, if it shows this very file.
    fileprivate func device(if image: FileStatus, at path: BytePath?) throws(Errno) -> LoopDevice? {
        let opened: OwnedDescriptor
        do throws(Errno) { opened = try FileDescriptor.workingDirectory.open(device, [.readOnly]) } catch {
            // Another file's may be taken apart just now; one that a container hides cannot be used.
            if file == path { throw error }
            return nil
        }
        var (number, inode): (UInt64, UInt64) = (0, 0)
        guard unsafe varve_loop_file(opened.fd.rawValue, &number, &inode) == 0, number == image.device,
            inode == image.inode
        else { return nil }
        return LoopDevice(opened, device)
    }
}

extension FileDescriptor {
    /// Gives this loop device the size that its file has now (`LOOP_SET_CAPACITY`).
    package func fitLoopDevice() throws(Errno) {
        guard varve_loop_fit(rawValue) == 0 else { throw Errno(rawValue: errno) }
    }
}

/// A loop device and its file, as the kernel shows them to everybody.
package struct AttachedFile: Sendable {
    /// `/dev/loopN`.
    package var device: BytePath
    /// `MAJOR:MINOR`.
    package var number: String
    /// Where the file is, in the mounts that its user saw; with " (deleted)" behind it where it has no name any more.
    package var file: BytePath

    /// All that there are (`/sys/block/loopN/loop/backing_file`). Empty where a container hides them.
    package static func all() throws(Errno) -> [AttachedFile] {
        let blocks: SharedDescriptor
        do throws(Errno) {
            blocks = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory("/sys/block"))
        } catch .noSuchFileOrDirectory {
            return []
        }
        /// The first line; nil for a device that shows no file, or does not any more (ENODEV).
        func line(_ name: BytePath) throws(Errno) -> [UInt8]? {
            do throws(Errno) {
                return try blocks.fd.readFile(name, limit: 1 << 16).split(separator: 0x0a).first.map {
                    Array($0)
                }
            } catch {
                if [.noSuchFileOrDirectory, Errno(rawValue: ENODEV)].contains(error) { return nil }
                throw error
            }
        }
        var result: [AttachedFile] = []
        for entry in try blocks.fd.entries() where entry.name.hasPrefix(Array("loop".utf8)) {
            guard let file = try line(entry.name.appending("loop/backing_file")).flatMap({ BytePath($0) }),
                let number = try line(entry.name.appending("dev"))
            else { continue }
            result.append(
                AttachedFile(
                    device: BytePath("/dev").appending(entry.name),
                    number: String(decoding: number, as: UTF8.self), file: file))
        }
        return result
    }
}
