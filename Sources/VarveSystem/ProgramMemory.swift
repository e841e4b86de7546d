import CLinux
import Glibc
import SystemPackage

/// Gives all variables of this program that begin as zero their memory at once (madvise(2), MADV_POPULATE_WRITE). It does nothing
/// where the kernel cannot.
package func populateZeroedVariables() { varve_populate_variables() }

/// The memory of this process.
package enum ProgramMemory {
    /// Bytes of it that are in memory (proc_pid_statm(5)); nil where /proc is not mounted.
    package static var resident: Int? {
        guard let bytes = try? FileDescriptor.workingDirectory.readFile("/proc/self/statm", limit: 4096)
        else { return nil }
        let fields = bytes.split(separator: UInt8(ascii: " "))
        guard fields.count > 1, let pages = Int(String(decoding: fields[1], as: UTF8.self)) else {
            return nil
        }
        return pages * Int(getpagesize())
    }
}
