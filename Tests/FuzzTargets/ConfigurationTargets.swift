import VarveFormats
import VarveLayers
import VarveOCI
import VarveStore
import VarveSystem

extension FuzzTarget {
    /// TOML, and the `hooks.toml` that it may be.
    ///
    /// An error that names a line of it in few words, or a table that is the same when it is written and read again; hooks
    /// that can be run as they are told.
    package static let configuration = FuzzTarget(
        name: "configuration",
        seeds: { tomlSeeds.map { Array($0.utf8) } },
        run: { bytes in
            let table: TOMLTable
            let lines = bytes.count { $0 == 0x0a } + 1
            do throws(TOMLError) { table = try TOMLTable(parsing: bytes) } catch {
                try require((1...lines).contains(error.line), "it blames line \(error.line) of \(lines)")
                try require(error.reason.utf8.count < 1000, "a reason of \(error.reason.utf8.count) bytes")
                do { _ = try HooksConfiguration(parsing: bytes, of: "hooks.toml") } catch {
                    return try refusal(error)
                }
                throw FuzzFinding("hooks in what is not TOML")
            }
            let plain = withoutLines(table)
            if depth(.table(table)) < 60 {
                let text = plain.members.map { "\(quoted($0.key)) = \(written($0.value))\n" }.joined()
                let again: TOMLTable
                do throws(TOMLError) { again = try TOMLTable(parsing: Array(text.utf8)) } catch {
                    throw FuzzFinding("\(error) in \(text)")
                }
                try require(same(.table(withoutLines(again)), .table(plain)), "it became \(text)")
            }
            do {
                for (name, hook) in try HooksConfiguration(parsing: bytes, of: "hooks.toml").hooks {
                    let program = hook.command.first ?? .empty
                    try require(
                        program.isAbsolute || program.components.count == 1, "the program \(program)")
                    try require(
                        (.seconds(1) ... .seconds(86_400)).contains(hook.timeout), "\(hook.timeout)")
                    try require(hook.store?.isAbsolute ?? true, "the store of \(name.rawValue)")
                    try require(!hook.fallback || name == .deltaList, "a fallback of \(name.rawValue)")
                }
                return .taken
            } catch {
                return try refusal(error)
            }
        })

    /// `umoci.json` of a bundle.
    ///
    /// An error that blames the file, or what is the same when it is written and read again, with no member lost.
    package static let bundles = FuzzTarget(
        name: "bundles",
        seeds: { bundleSeeds.map { Array($0.utf8) } },
        run: { bytes in
            let read: BundleMetadata
            do { read = try BundleMetadata(parsing: bytes, of: "umoci.json") } catch let error as VarveError {
                try require(
                    error.code == .invalidInput || error.code == .unsupported,
                    "the error \(error) is \(error.code)")
                return try few(error.description)
            } catch let error as OCIError {
                try require(error.kind == .invalidInput, "the error \(error) is \(error.kind)")
                return try few(error.description)
            }
            let text = read.encoded
            let again = try BundleMetadata(parsing: text, of: "umoci.json")
            try require(
                again.encoded == text && again.path == read.path && again.apply == read.apply,
                "it became \(BytePath.excerpt(text, limit: 4000))")
            var members = try JSONValue(parsing: bytes).object ?? [:]
            if !read.apply.keepDirlinks { members["varve_keep_dirlinks"] = nil }
            try require(try JSONValue(parsing: text) == .object(members), "a member was lost or changed")
            try require(!read.path.isEmpty && read.apply.owners.variant.utf8.count < 200, "its variant")
            return .taken
        })
}

private func refusal(_ error: any Error) throws -> FuzzTarget.Outcome {
    guard let error = error as? VarveError, error.code == .usage else { throw error }
    return try few(error.description)
}

private func few(_ message: String) throws -> FuzzTarget.Outcome {
    try require(message.utf8.count < 2000, "a message of \(message.utf8.count) bytes")
    return .refused
}

// MARK: TOML

private func withoutLines(_ table: TOMLTable) -> TOMLTable {
    var result = table
    for index in result.members.indices {
        result.members[index].line = 0
        result.members[index].value = withoutLines(result.members[index].value)
    }
    return result
}

private func withoutLines(_ value: TOMLValue) -> TOMLValue {
    switch value {
    case .table(let table): .table(withoutLines(table))
    case .array(let values): .array(values.map(withoutLines))
    default: value
    }
}

private func depth(_ value: TOMLValue) -> Int {
    switch value {
    case .table(let table): 1 + (table.members.map { depth($0.value) }.max() ?? 0)
    case .array(let values): 1 + (values.map(depth).max() ?? 0)
    default: 1
    }
}

/// By bytes: `==` takes two spellings of one accented letter for the same.
private func same(_ one: TOMLValue, _ other: TOMLValue) -> Bool {
    written(one).utf8.elementsEqual(written(other).utf8)
}

private func written(_ value: TOMLValue) -> String {
    switch value {
    case .string(let text): quoted(text)
    case .integer(let number): String(number)
    case .boolean(let flag): String(flag)
    case .array(let values): "[" + values.map(written).joined(separator: ", ") + "]"
    case .table(let table):
        "{" + table.members.map { "\(quoted($0.key)) = \(written($0.value))" }.joined(separator: ", ") + "}"
    }
}

private func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"", "\\": result += "\\\(scalar)"
        case "\u{0}"..."\u{1f}", "\u{7f}":
            let digits = String(scalar.value, radix: 16)
            result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result + "\""
}

private let tomlSeeds = [
    """
    [hooks]
    "unpack.ociv1.layer.try-skip" = { command = ["/usr/libexec/overlay-hook", "a b"], timeout = 60, store = "/s" }
    "repack.ociv1.delta-list" = { command = ['hook'], fallback = true } # a comment
    [hooks."unpack.ociv1.bundle.post-unpack"]
    command = [ # one
        "x",
    ]
    timeout = 1_000\r

    """,
    """
    name = "a \\"b\\" \\u00e9\\t\\U0001F600"
    'literal key' = 'C:\\x'
    [one.two]
    number = -1_000
    list = [1, ["two"], [], {a = {}, b = true}, +0]
    [one]
    "quoted.key" = { a = 1 }
    dotted.a.b = 1
    dotted . "a" . c = 9223372036854775807
    """,
]

// MARK: umoci.json

private let sha = "sha256:" + String(repeating: "0a", count: 32)
private let walk =
    #""from_descriptor_path":{"descriptor_walk":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","#
    + #""digest":"\#(sha)","size":7,"annotations":{"org.opencontainers.image.ref.name":"latest"}}],"other":1}"#
private let bundleSeeds = [
    #"{"umoci_version":"2",\#(walk),"map_options":{"uid_mappings":null,"gid_mappings":null,"rootless":false},"#
        + #""whiteout_mode":0}"#,
    #"{"umoci_version":"2",\#(walk),"map_options":{"uid_mappings":[{"containerID":0,"hostID":1000,"size":1},"#
        + #"{"containerID":1,"hostID":100000,"size":65536}],"gid_mappings":[],"rootless":true},"#
        + #""varve_keep_dirlinks":true,"unknown":{"a":[1.5e3]}}"#,
    #"{"umoci_version":"2",\#(walk),"whiteout_mode":1}"#,
]
