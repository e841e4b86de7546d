import Glibc
import Logging
import VarveFormats
import VarveOCI
import VarveSystem
import SystemPackage

/// skopeo(1), which reaches images where other tools keep them, with its own authentication and configuration.
///
/// It runs supervised: nothing of it is left when a call returns, however it ends, nor when this process is killed: setpriv(1) has it end with
/// its parent. Its temporary files are in a directory of this value's. What it says is shown to a person only as one sentence, escaped and cut.
final class Skopeo {
    private let program: BytePath
    private let dyingWithParent: [BytePath]
    /// It has temporary files of archives and of images that others keep, and leaves them when it is ended.
    private let temporary: PrivateDirectory?
    private let platform: Platform?
    private let cancellation: Cancellation
    private let logger: Logger

    /// Bytes of what it says that an error may hold.
    private static let wordsLimit = 1000
    /// As long as a person has patience: whoever waits can end it.
    private static let timeLimit = Duration.seconds(Int64(1) << 31)

    /// - Parameters:
    ///   - transport: of the images that it is told of.
    ///   - platform: which image of several is meant; nil for that of this host.
    /// - Throws: `unsupported` if it is not there, or somebody else could have changed it.
    init(
        for transport: TransportReference.Transport, platform: Platform?, cancellation: Cancellation,
        logger: Logger
    ) throws {
        do throws(PlaceError) {
            program = try SupervisedProgram.ownProgram("skopeo")
        } catch {
            guard error.errno == .noSuchFileOrDirectory else {
                throw VarveError(error, "skopeo is not run")
            }
            throw VarveError(
                .unsupported, "skopeo is not there, which reaches images in registries and archives",
                subject: "skopeo", remedy: .install("skopeo"))
        }
        let setpriv = try? SupervisedProgram.ownProgram("setpriv")
        dyingWithParent = setpriv.map { [$0, "--pdeathsig", "TERM", "--"] } ?? []
        temporary = transport == .docker ? nil : try PrivateDirectory(in: nil, for: "skopeo", cancellation)
        self.platform = platform
        self.cancellation = cancellation
        self.logger = logger
    }

    /// Bytes of its temporary files.
    func temporaryBytes() -> Int64 { temporary?.bytes() ?? 0 }

    enum Document {
        /// The manifest of an image, or the list of those of several.
        case manifest
        case configuration
    }

    /// A document of an image, byte for byte.
    ///
    /// - Parameter check: called about 20 times a second; what it throws ends the program.
    func read(_ document: Document, of image: TransportReference, check: () throws -> Void) throws -> [UInt8]
    {
        let what: [BytePath] = document == .configuration ? ["--config"] : []
        return try run(["inspect"] + what + ["--raw", BytePath(image.description)], "read", image) { _ in
            try check()
        }
    }

    /// Copies an image.
    ///
    /// - Parameters:
    ///   - doing: what for, as it reads on from "cannot".
    ///   - check: called about 20 times a second with the number of the process; what it throws ends the copy.
    func copy(
        _ arguments: [BytePath], _ doing: String, _ image: TransportReference,
        check: (Int32) throws -> Void
    ) throws {
        var hosts: [BytePath] = []
        if image.transport == .dockerDaemon {
            let daemon = DockerDaemon()
            try daemon.requireListening()
            let address = BytePath(daemon.address)
            hosts = ["--src-daemon-host", address, "--dest-daemon-host", address]
        }
        _ = try run(["copy"] + hosts + arguments, doing, image, check: check)
    }

    private var platformOptions: [BytePath] {
        guard let platform else { return [] }
        var options = ["--override-os", platform.os, "--override-arch", platform.architecture]
        if let variant = platform.variant { options += ["--override-variant", variant] }
        return options.map { BytePath($0) }
    }

    private func run(
        _ arguments: [BytePath], _ doing: String, _ image: TransportReference,
        check: (Int32) throws -> Void = { _ in }
    ) throws -> [UInt8] {
        let supervised = SupervisedProgram(
            arguments: dyingWithParent + [program] + (temporary.map { ["--tmpdir", $0.path] } ?? [])
                + platformOptions + arguments,
            input: [],
            outputLimit: ImageLayout.documentLimit, timeLimit: Self.timeLimit)
        logger.debug("running skopeo \(arguments.map(\.description).joined(separator: " "))")
        var words = LastWords()
        let outcome: SupervisedProgram.Outcome
        do {
            outcome = try supervised.run(
                onErrorOutput: { words.add($0) }, whileRunning: check,
                check: { try cancellation.check() })
        } catch let error as Errno {
            throw VarveError.system("run", program, error)
        }
        let subject = BytePath(image.description)
        switch outcome.ending {
        case .exited(status: 0): return outcome.output
        case .flooded:
            throw VarveError(
                .invalidInput,
                "the manifest or the configuration of \"\(image)\" has more than the \(ImageLayout.documentLimit) bytes that are read of it",
                subject: subject)
        case .killed(let signal):
            throw VarveError(
                .failed, "cannot \(doing) \"\(image)\": skopeo was killed by signal \(signal)",
                subject: subject)
        case .exited, .timedOut:
            // Nobody is helped by the name twice.
            let said = words.sentence.withoutPrefix("Error parsing image name \"\(image)\": ")
            let kind = Self.kind(said)
            throw VarveError(
                kind.code,
                "cannot \(doing) \"\(image)\": \(BytePath.excerpt(said.utf8, limit: Self.wordsLimit))",
                subject: subject, remedy: kind.needsLogin ? Self.login(image) : nil)
        }
    }

    private static func login(_ image: TransportReference) -> VarveError.Remedy? {
        image.host.map { .follow("log in first, such as with: skopeo login \(BytePath($0).shellWord)") }
    }

    /// What kind of error its words tell of. It has one exit status for all.
    private static func kind(_ words: String) -> (code: VarveError.Code, needsLogin: Bool) {
        let text = words.lowercased()
        func says(_ parts: String...) -> Bool { parts.contains { text.contains($0) } }
        if says("no space left", "disk quota exceeded") { return (.noSpace, false) }
        if says(
            "unauthorized", "authentication required", "access to the resource is denied", "invalid username")
        {
            return (.failed, true)
        }
        if says(
            "invalid reference format", "neither a tag nor a digest", "must be lowercase",
            "is reserved for (non-shortened)")
        {
            return (.usage, false)
        }
        if says(
            "manifest unknown", "name unknown", "no such file or directory", "does not resolve to an image",
            "no such image", "not found", "no descriptor found", "repository name not known")
        {
            return (.notFound, false)
        }
        if says(
            "digest did not match", "does not match", "invalid character", "unexpected eof",
            "parsing manifest")
        {
            return (.invalidInput, false)
        }
        return (.failed, false)
    }
}

/// What skopeo says last: its error.
private struct LastWords {
    private var line: [UInt8] = []
    private static let limit = 16 << 10

    mutating func add(_ bytes: [UInt8]) {
        let words = bytes.filter { $0 != UInt8(ascii: "\n") && $0 != UInt8(ascii: "\r") }
        if words.contains(where: { $0 != 0x20 && $0 != 0x09 }) { line = Array(words.prefix(Self.limit)) }
    }

    /// Without what its log puts around it: `time="…" level=fatal msg="…"`.
    var sentence: String {
        let text = String(decoding: line, as: UTF8.self)
        guard text.hasPrefix("time="), let start = text.firstRange(of: " msg=\"") else {
            return text.isEmpty ? "skopeo failed and said nothing" : text
        }
        // As Go quotes it (strconv.Quote); what is not a character stays escaped.
        var result = ""
        var isEscaped = false
        for character in text[start.upperBound...] {
            if isEscaped {
                if character != "\"", character != "\\" { result.append("\\") }
                result.append(character)
                isEscaped = false
            } else if character == "\\" {
                isEscaped = true
            } else if character == "\"" {
                break
            } else {
                result.append(character)
            }
        }
        return result
    }
}

extension String {
    fileprivate func withoutPrefix(_ prefix: String) -> String {
        hasPrefix(prefix) ? String(dropFirst(prefix.count)) : self
    }
}
