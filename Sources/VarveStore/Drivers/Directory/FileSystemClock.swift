import Glibc
import VarveSystem
import SystemPackage

/// The clock by which a file system dates changes. It has ticks: of up to 10 ms mostly, of a second on some.
enum FileSystemClock {
    /// A moment from which on each write to a file in `directory`'s file system gives it a later change time, also where somebody has it
    /// mapped: a page that was written to before is written out first, and only then noticed again (`page_mkwrite`). Nil where there is no
    /// such moment.
    static func settle(_ directory: FileDescriptor, path: BytePath) throws(VarveError) -> Timestamp? {
        let moment = try pass(Timestamp(seconds: .min), in: directory, path: path)
        return try attempt("write out", path) { () throws(Errno) in
            guard try directory.fileSystem().datesMappedWrites else { return nil }
            try directory.synchronizeFileSystem()
            return moment
        }
    }

    /// Waits until the clock has gone past `moment`, so that nothing changed from now on can bear that time, and returns
    /// what it shows then. A clock that does not go past it soon is not waited for: `moment` is returned, and what bears
    /// that time is not to be trusted.
    static func pass(_ moment: Timestamp, in directory: FileDescriptor, path: BytePath) throws(VarveError)
        -> Timestamp
    {
        try attempt("tell the time of the file system of", path) { () throws(Errno) in
            let name = BytePath(".clock." + randomName())
            let file = try directory.open(name, [.writeOnly, .create, .exclusive, .noFollow], mode: 0o600)
            defer { try? directory.unlink(name) }
            for _ in 0..<100 {
                try file.fd.changeMode(to: 0o600)
                let now = try file.fd.status().changeTime
                if now > moment { return now }
                usleep(1_000)
            }
            return moment
        }
    }
}
