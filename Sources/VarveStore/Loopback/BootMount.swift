import Glibc
package import Logging
package import VarveSystem
import SystemPackage

/// What brings a loopback store back when the host boots: a mount unit of systemd, or, on a host without systemd, a line in `/etc/fstab`.
/// Neither needs Varve to be there.
package struct BootMount {
    /// Where the host's files are; another in tests.
    private let root: BytePath
    /// Where the store is mounted, and its image: absolute, without links.
    private let store: BytePath
    private let image: BytePath
    private let logger: Logger

    private static let units: BytePath = "etc/systemd/system"
    private static let wants: BytePath = "local-fs.target.wants"
    /// How a unit of ours begins. Others are left alone.
    private static let mark = "# Made by varve"
    /// In the options of a line of ours: mount(8) passes over what begins so.
    private static let option = "x-varve.store"

    /// - Parameter store: its directory need not be there.
    package init(of store: BytePath, root: BytePath = "/", logger: Logger) throws(VarveError) {
        self.root = root
        self.logger = logger
        let image = LoopbackStore.image(of: store)
        let parent = image.parent.isEmpty ? BytePath.current : image.parent
        let above = try attempt("look at", parent) { () throws(Errno) in
            let opened = try FileDescriptor.workingDirectory.open(parent, [.directory, .path])
            return try opened.fd.path()
        }
        self.image = above.appending(image.lastComponent)
        self.store = above.appending(BytePath(image.lastComponent.bytes.dropLast(6)) ?? .empty)
        let isPlain = [self.store, self.image].allSatisfy { path in
            path.string != nil && !path.bytes.contains { $0 < 0x20 || $0 == 0x7f || $0 == UInt8(ascii: "\\") }
        }
        guard isPlain else {
            throw VarveError(
                .usage, "\"\(store)\" cannot be mounted at boot: its path has bytes that no unit can hold",
                subject: store, remedy: .name("a store whose path is plain text"))
        }
    }

    private var hasSystemd: Bool {
        (try? FileDescriptor.workingDirectory.status(of: root.appending("run/systemd/system"))) != nil
    }

    /// The name of the mount unit, which systemd takes from the mount point (systemd.unit(5), "String Escaping for Inclusion in Unit
    /// Names").
    package var unitName: BytePath {
        var name: [UInt8] = []
        for byte in store.bytes.drop(while: { $0 == UInt8(ascii: "/") }) {
            let scalar = Unicode.Scalar(byte)
            let isPlain =
                byte < 0x80 && (scalar.properties.isAlphabetic || (0x30...0x39).contains(byte))
                || [0x3a, 0x5f].contains(byte) || byte == UInt8(ascii: ".") && !name.isEmpty
            if byte == UInt8(ascii: "/") {
                name.append(UInt8(ascii: "-"))
            } else if isPlain {
                name.append(byte)
            } else {
                name +=
                    Array("\\x".utf8) + Array((byte < 16 ? "0" : "").utf8)
                    + Array(String(byte, radix: 16).utf8)
            }
        }
        return BytePath(name + Array(".mount".utf8)) ?? .empty
    }

    private func options(_ compression: StoreCompression?) -> String {
        ["loop", "noatime", LoopbackStore.mountOptions, compression?.mountOption].compactMap { $0 }.joined(
            separator: ",")
    }

    // MARK: Making

    /// Makes it. What was made before is made anew.
    package func install() throws {
        let compression = try StoreCompression.of(store)
        if hasSystemd { try installUnit(compression) } else { try installLine(compression) }
    }

    private func installUnit(_ compression: StoreCompression?) throws {
        // A percent sign begins what systemd puts in itself.
        func value(_ path: BytePath) -> String { (path.string ?? "").replacing("%", with: "%%") }
        let text = """
            \(Self.mark) store, with --at-boot; varve store unmount --forget takes it away.
            [Unit]
            Description=Store of Varve in \(value(image))
            Documentation=man:varve-store(1)

            [Mount]
            What=\(value(image))
            Where=\(value(store))
            Type=btrfs
            Options=\(options(compression))
            DirectoryMode=0700

            [Install]
            WantedBy=local-fs.target

            """
        let directory = root.appending(Self.units)
        try attempt("write", directory.appending(unitName)) { () throws(Errno) in
            if let units = try openUnits(making: false), try units.fd.statusIfPresent(of: unitName) != nil,
                try !isOwn(in: units.fd)
            {
                throw .fileExists
            }
            guard let units = try openUnits(making: true) else { throw .noSuchFileOrDirectory }
            try units.fd.writeFileDurably(unitName, Array(text.utf8), mode: 0o644)
            let wanting = try FileDescriptor.workingDirectory.openDirectory(directory.appending(Self.wants))
            do throws(Errno) {
                try wanting.fd.makeSymbolicLink(
                    unitName, target: directory.appending(unitName).relative(to: root))
            } catch .fileExists {}
            try wanting.fd.synchronize()
        }
        reload()
    }

    private func openUnits(making: Bool) throws(Errno) -> SharedDescriptor? {
        let here = FileDescriptor.workingDirectory
        let directory = root.appending(Self.units)
        if making {
            for path in [directory, directory.appending(Self.wants)] {
                do throws(Errno) { try here.makeDirectory(path, mode: 0o755) } catch .fileExists {}
            }
        }
        do throws(Errno) {
            return SharedDescriptor(try here.openDirectory(directory))
        } catch .noSuchFileOrDirectory {
            return nil
        }
    }

    private func isOwn(in units: FileDescriptor) throws(Errno) -> Bool {
        try units.readFile(unitName, limit: 1 << 16).starts(with: Self.mark.utf8)
    }

    /// systemd reads the units anew; until the next boot it does so by itself.
    private func reload() {
        guard root == "/" else { return }
        do {
            let outcome = try SupervisedProgram(
                arguments: [try SupervisedProgram.ownProgram("systemctl"), "daemon-reload"], input: [],
                outputLimit: 1 << 20, timeLimit: .seconds(60)
            ).run()
            if outcome.ending != .exited(status: 0) {
                logger.warning("systemctl daemon-reload failed: \(outcome.lastWords ?? "\(outcome.ending)")")
            }
        } catch {
            logger.warning("systemctl daemon-reload cannot be run: \(error)")
        }
    }

    // MARK: fstab

    /// Is in its directory while a command changes the table.
    private static let tableLock: BytePath = ".varve-fstab.lock"
    private var table: BytePath { root.appending("etc/fstab") }

    /// fstab(5): blanks and backslashes as octal numbers.
    private static func field(_ path: BytePath) -> [UInt8] {
        path.bytes.flatMap { byte -> [UInt8] in
            [0x20, 0x09, 0x5c, 0x23].contains(byte)
                ? Array(("\\" + ("00" + String(byte, radix: 8)).suffix(3)).utf8) : [byte]
        }
    }

    private func isOwnLine(_ line: ArraySlice<UInt8>) -> Bool {
        let fields = line.split { $0 == 0x20 || $0 == 0x09 }
        guard fields.count >= 4, fields[0].first != UInt8(ascii: "#") else { return false }
        return Array(fields[1]) == Self.field(store)
            && fields[3].split(separator: UInt8(ascii: ",")).contains { $0.elementsEqual(Self.option.utf8) }
    }

    private func installLine(_ compression: StoreCompression?) throws {
        try changeTable { lines in
            let line =
                Self.field(image) + [0x20] + Self.field(store)
                + Array(" btrfs \(options(compression)),nofail,\(Self.option) 0 0".utf8)
            return lines.filter { !isOwnLine($0) } + [line[...]]
        }
    }

    /// - Returns: whether something changed.
    @discardableResult
    private func changeTable(_ change: ([ArraySlice<UInt8>]) -> [ArraySlice<UInt8>]) throws(VarveError)
        -> Bool
    {
        let table = table
        return try attempt("change", table) { () throws(Errno) -> Bool in
            let directory = SharedDescriptor(try FileDescriptor.workingDirectory.openDirectory(table.parent))
            // Two that read it before either writes it would lose a line.
            let lock = try DirectoryLock.wait(
                .exclusive, on: directory, file: Self.tableLock, Cancellation())
            defer { extendLifetime(lock) }
            let status = try directory.fd.statusIfPresent(of: table.lastComponent)
            // A symbolic link is somebody's arrangement, which a new file would end.
            if let status, !status.isRegular { throw .fileExists }
            let old = status == nil ? [] : try directory.fd.readFile(table.lastComponent, limit: 1 << 20)
            var lines = old.split(separator: 0x0a, omittingEmptySubsequences: false)
            if lines.last?.isEmpty == true { lines.removeLast() }
            let new = change(lines)
            guard new != lines else { return false }
            try directory.fd.writeFileDurably(
                table.lastComponent, Array(new.flatMap { $0 + [0x0a] }), mode: status?.permissions ?? 0o644)
            return true
        }
    }

    // MARK: Taking it away

    /// Whether there is one.
    package var isInstalled: Bool {
        let units = (try? openUnits(making: false)) ?? nil
        if let units, (try? isOwn(in: units.fd)) == true { return true }
        guard let bytes = try? FileDescriptor.workingDirectory.readFile(table, limit: 1 << 20) else {
            return false
        }
        return bytes.split(separator: 0x0a).contains { isOwnLine($0) }
    }

    /// Takes away what was made, and nothing else.
    ///
    /// - Returns: whether there was something.
    @discardableResult
    package func remove() throws -> Bool {
        var isFound = false
        let directory = root.appending(Self.units)
        try attempt("remove", directory.appending(unitName)) { () throws(Errno) in
            guard let units = try openUnits(making: false), try units.fd.statusIfPresent(of: unitName) != nil,
                try isOwn(in: units.fd)
            else { return }
            isFound = true
            do throws(Errno) {
                try units.fd.unlink(Self.wants.appending(unitName))
            } catch .noSuchFileOrDirectory {}
            try units.fd.unlink(unitName)
            do throws(Errno) { try units.fd.removeDirectory(Self.wants) } catch {}
            try units.fd.synchronize()
        }
        if isFound, hasSystemd { reload() }
        let table = table
        let isThere = try attempt("look at", table) { () throws(Errno) in
            try FileDescriptor.workingDirectory.statusIfPresent(of: table) != nil
        }
        if isThere, try changeTable({ lines in lines.filter { !isOwnLine($0) } }) { isFound = true }
        return isFound
    }
}

extension BytePath {
    /// Of a path below `root`, the absolute path that it has there.
    fileprivate func relative(to root: BytePath) -> BytePath {
        root == "/" ? self : BytePath(Array(bytes.dropFirst(root.count))) ?? self
    }
}
