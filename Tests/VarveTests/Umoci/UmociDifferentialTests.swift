import Glibc
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// What umoci, in the releases of Debian 12 and of today, and `varve` called by that name make of the same commands, and what
/// each makes of what the other left.
///
/// `VARVE_UMOCI_SEQUENCES` is the number of sequences made at random in each setting, `VARVE_UMOCI_SEED` the seed of the
/// first; the others have those after it. Every setting makes other sequences of one seed.
@Suite struct UmociDifferentialTests {
    static let count = variable("VARVE_UMOCI_SEQUENCES") ?? 20
    static let seed = variable("VARVE_UMOCI_SEED") ?? 1

    private static func variable(_ name: String) -> Int? {
        guard let value = unsafe getenv(name) else { return nil }
        return unsafe Int(String(cString: value))
    }

    @Test(arguments: UmociSetting.all)
    func randomSequences(_ setting: UmociSetting) throws {
        let room = try UmociRoom(setting)
        for number in Self.seed..<(Self.seed + Self.count) {
            var grammar = UmociGrammar(seed: number, setting: setting)
            try check(grammar.sequence("seed \(number)"), number, in: room)
        }
    }

    @Test(arguments: UmociSetting.all)
    func writtenSequences(_ setting: UmociSetting) throws {
        let room = try UmociRoom(setting)
        let sequences = UmociCase.all.map(\.sequence) + UmociSequence.bundles(isRootless: setting.isRootless)
        for (number, sequence) in sequences.enumerated() { try check(sequence, number, in: room) }
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
