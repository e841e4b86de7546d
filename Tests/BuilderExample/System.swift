import Crypto
import FoundationEssentials
import Glibc
import SystemPackage

/// The first digits of a digest of words.
func key(_ words: [String]) -> String {
    var hasher = SHA256()
    for word in words { hasher.update(data: Array("\(word.utf8.count):\(word)".utf8)) }
    return hexadecimal(hasher.finalize())
}

func key(_ words: String...) -> String { key(words) }

private func hexadecimal(_ digest: SHA256.Digest) -> String {
    digest.prefix(16).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

func absolute(_ path: String) -> String {
    path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
}

/// A digest of a file, or of a directory and all below: names, modes, owners and contents.
@concurrent
func content(of path: String) async throws -> String {
    let manager = FileManager.default
    let attributes = try manager.attributesOfItem(atPath: path)
    let type = attributes[.type] as? FileAttributeType
    var words = [.posixPermissions, .ownerAccountID, .groupOwnerAccountID].map { (name: FileAttributeKey) in
        "\(attributes[name] ?? "")"
    }
    words.append(type?.rawValue ?? "")
    if type == .typeSymbolicLink {
        words.append(try manager.destinationOfSymbolicLink(atPath: path))
    } else if type == .typeDirectory {
        for name in try manager.contentsOfDirectory(atPath: path).sorted() {
            words += [name, try await content(of: path + "/" + name)]
        }
    } else {
        let file = try FileDescriptor.open(FilePath(path), .readOnly)
        words.append(
            try file.closeAfter {
                var hasher = SHA256()
                while case let part = try file.readPart(), !part.isEmpty { hasher.update(data: part) }
                return hexadecimal(hasher.finalize())
            })
    }
    return key(words)
}

extension FileDescriptor {
    /// The next bytes; none at the end.
    func readPart() throws -> [UInt8] {
        try unsafe [UInt8](unsafeUninitializedCapacity: 1 << 16) { buffer, count in
            count = try unsafe read(into: UnsafeMutableRawBufferPointer(buffer))
        }
    }
}

func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

/// Writes a line at once.
func say(_ line: String, to stream: FileDescriptor = .standardOutput) {
    _ = try? stream.writeAll((line + "\n").utf8)
}

/// A file that one task of one process holds at a time.
struct Lock: Sendable {
    private let file: FileDescriptor

    /// Waits for it without holding up a thread.
    init(_ path: String) async throws {
        let folder = FilePath(path).removingLastComponent()
        if !folder.isEmpty { _ = unsafe mkdir(folder.string, 0o755) }
        file = try FileDescriptor.open(
            FilePath(path), .writeOnly, options: [.create, .closeOnExec], permissions: [.ownerReadWrite])
        do {
            while flock(file.rawValue, LOCK_EX | LOCK_NB) != 0 {
                try await Task.sleep(for: .milliseconds(20))
            }
        } catch {
            try? file.close()
            throw error
        }
    }

    func release() { try? file.close() }
}

/// Runs a program to its end, with the standard streams of this process. If the task is cancelled, the program is asked to end.
func runProgram(_ words: [String]) async throws {
    // The threads of Swift's concurrency block signals, and a program inherits that.
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    unsafe sigemptyset(&none)
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    var pid: pid_t = 0
    let copies = unsafe words.map { unsafe strdup($0) }
    let failure = unsafe posix_spawnp(&pid, words[0], nil, &attributes, copies + [nil], environ)
    unsafe copies.forEach { unsafe free($0) }
    guard failure == 0 else { throw Failure("\(words[0]) cannot be run: \(Errno(rawValue: failure))") }
    var status: CInt = 0
    var isAsked = false
    while unsafe waitpid(pid, &status, WNOHANG) == 0 {
        if Task.isCancelled, !isAsked {
            kill(pid, SIGTERM)
            isAsked = true
        }
        // A task that was cancelled does not sleep.
        if isAsked {
            await Task { try? await Task.sleep(for: .milliseconds(5)) }.value
        } else {
            try? await Task.sleep(for: .milliseconds(5))
        }
    }
    try Task.checkCancellation()
    guard status == 0 else {
        throw Failure(
            status & 0x7f == 0
                ? "\(words[0]) \(words[1]) ended with \(status >> 8 & 0xff)"
                : "\(words[0]) \(words[1]) was killed by signal \(status & 0x7f)")
    }
}
