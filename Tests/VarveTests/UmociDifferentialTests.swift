import Glibc
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// What umoci, in the releases of Debian 12 and of today, and `varve` called by that name make of the same commands, and what
/// each makes of what the other left.
///
/// `VARVE_UMOCI_SEQUENCES` is the number of sequences made at random in each setting, `VARVE_UMOCI_SEED` the seed of the
/// first; the others have those after it.
@Suite struct UmociDifferentialTests {
    static let count = variable("VARVE_UMOCI_SEQUENCES") ?? 10
    static let seed = variable("VARVE_UMOCI_SEED") ?? 1

    private static func variable(_ name: String) -> Int? {
        guard let value = unsafe getenv(name) else { return nil }
        return unsafe Int(String(cString: value))
    }

    @Test(arguments: UmociSetting.all)
    func randomSequences(_ setting: UmociSetting) throws {
        let room = try UmociRoom(setting)
        for number in Self.seed..<(Self.seed + Self.count) {
            var grammar = UmociGrammar(seed: UInt64(number), setting: setting)
            try check(grammar.sequence("seed \(number)"), number, in: room)
        }
    }

    @Test(arguments: UmociSetting.all.filter { !$0.isRootless })
    func writtenSequences(_ setting: UmociSetting) throws {
        let room = try UmociRoom(setting)
        // Where no bundle is made, the driver makes no difference.
        let sequences = setting.isBtrfs ? UmociCase.all.map(\.sequence) : []
        for (number, sequence) in (sequences + UmociSequence.bundles).enumerated() {
            try check(sequence, number, in: room)
        }
    }

    private func check(_ sequence: UmociSequence, _ number: Int, in room: borrowing UmociRoom) throws {
        let findings: [String]
        do { findings = try room.differences(sequence, number: number) } catch {
            findings = ["\(type(of: error)): \(error)"]
        }
        guard !findings.isEmpty else { return }
        Issue.record("\(sequence)\n\(findings.joined(separator: "\n"))")
    }
}

/// The images of a layout as lines of text: equal for layouts that mean the same.
struct ImageContents {
    private(set) var lines = Set<String>()
    /// The digests of all layers.
    private(set) var layers = Set<String>()

    /// - Parameters:
    ///   - repacked: digests of layers of which the media type alone is looked at.
    ///   - ignoresSize: the annotation with which umoci since 0.6 tells the size of a layer is not looked at.
    init(
        _ path: BytePath, _ comparesTimes: Bool = false, repacked: Set<String> = [], ignoresSize: Bool = true
    ) throws {
        func read(_ name: String) throws -> [UInt8] {
            try FileDescriptor.workingDirectory.readFile(path.appending(name), limit: 1 << 30)
        }
        func blob(_ descriptor: LayoutDocument) throws -> [UInt8] {
            let hex = (descriptor["digest"]?.text ?? "").dropFirst("sha256:".count)
            return try read("blobs/sha256/\(hex)")
        }
        let index = try LayoutDocument(try read("index.json"))
        for entry in index["manifests"]?.elements ?? [] {
            let annotations = entry["annotations"] ?? .null
            let tag = annotations["org.opencontainers.image.ref.name"]?.text ?? "none"
            lines.insert("\(tag) entry \(entry["mediaType"] ?? .null) \(annotations)")
            let manifest = try LayoutDocument(try blob(entry))
            lines.insert("\(tag) annotations \(manifest["annotations"] ?? .null)")
            guard let config = manifest["config"] else { continue }
            let document = try LayoutDocument(try blob(config)).mapMembers { key, value in
                switch key {
                case "created": comparesTimes ? value : .string("some time")
                // umoci 0.6 loses it with the next command.
                case "variant": .string("some")
                case "diff_ids": .string("\(value.elements?.count ?? 0) layers")
                default: value
                }
            }
            for (key, value) in document.members ?? [:] { lines.insert("\(tag) config \(key) \(value)") }
            for (number, layer) in (manifest["layers"]?.elements ?? []).enumerated() {
                let type = layer["mediaType"]?.text ?? ""
                lines.insert("\(tag) layer \(number) \(type)")
                let digest = layer["digest"]?.text ?? ""
                layers.insert(digest)
                if repacked.contains(digest) { continue }
                if !ignoresSize {
                    lines.insert("\(tag) layer \(number) size \(layer["annotations"] ?? .null)")
                }
                for entry in try LayerContent(try blob(layer), type).entries {
                    lines.insert("\(tag) layer \(number) \(entry)")
                }
            }
        }
    }
}
