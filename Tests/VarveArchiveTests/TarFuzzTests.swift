import VarveArchive
import VarveSystem
import TestSupport
import Testing

/// Archives damaged at random: each gives entries or a `TarError`, and never more than its bytes can hold.
@Suite struct TarFuzzTests {
    static let rounds = 500

    /// One archive of everything, so that a mutation can hit what another entry left behind.
    static let whole: [UInt8] =
        (TarReaderTests.headers + TarReaderTests.gnu + TarReaderTests.pax
        + TarReaderTests.sparseFiles).flatMap(\.archive)

    @Test(arguments: 0..<8 as Range<UInt64>) func damagedArchives(_ seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var read = 0
        var refused = 0
        for round in 0..<Self.rounds {
            var archive = TarReaderTests.cases.randomElement(using: &random)?.archive ?? []
            if Int.random(in: 0..<20, using: &random) == 0 { archive = Self.whole }
            for _ in 0..<Int.random(in: 1...3, using: &random) { Self.mutate(&archive, &random) }
            let run = [64, 512, 1 << 16].randomElement(using: &random) ?? 1
            do {
                let (entries, bytes) = try Self.consume(archive, run: run)
                read += 1
                #expect(
                    entries <= archive.count / 512 && bytes <= archive.count, "seed \(seed), round \(round)")
            } catch let error as TarError {
                refused += 1
                #expect(error.offset <= archive.count && error.description.utf8.count < 1000)
            }
        }
        // Neither all nor none of them get through, or the mutations test nothing.
        #expect(read > Self.rounds / 20 && refused > Self.rounds / 20, "\(read) read, \(refused) refused")
    }

    static func consume(_ archive: [UInt8], run: Int) throws -> (entries: Int, bytes: Int) {
        let reader = TarReader(MemorySource(archive, run: run))
        var entries = 0
        var bytes = 0
        while let entry = try reader.nextEntry() {
            entries += 1
            var end: Int64 = 0
            while let (offset, run) = try unsafe reader.nextContent() {
                guard offset >= end, offset <= entry.size - Int64(run.count) else {
                    throw TestFailure("content of \(entry.path) outside")
                }
                end = offset + Int64(run.count)
                bytes += run.count
            }
        }
        return (entries, bytes)
    }

    static func mutate(_ archive: inout [UInt8], _ random: inout SeededGenerator) {
        guard !archive.isEmpty else { return }
        let at = Int.random(in: 0..<archive.count, using: &random)
        let block = at / 512 * 512
        let blockEnd = min(block + 512, archive.count)
        switch Int.random(in: 0..<9, using: &random) {
        case 0: archive[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1: archive[at] = UInt8.random(in: 0...255, using: &random)
        case 2: archive.removeSubrange(at...)
        case 3: archive.removeSubrange(block..<blockEnd)
        case 4: archive.insert(contentsOf: Array(archive[block..<blockEnd]), at: block)
        case 5:
            // A number field, with what is hard in numbers.
            let field =
                [100, 108, 116, 124, 124, 124, 136, 329, 337, 386, 398, 483].randomElement(using: &random)
                ?? 0
            let values: [[UInt8]] = [
                Array("77777777777".utf8), Array(TarBrokenTests.ones.prefix(8)), [0x80, 0, 0, 0, 0, 0, 0, 1],
                [0x80, 0, 0, 0, 0x7f] + TarBrokenTests.ones.prefix(7), Array("00000000001".utf8),
                Array("9".utf8), [0],
            ]
            for (index, byte) in (values.randomElement(using: &random) ?? []).enumerated()
            where block + field + index < archive.count {
                archive[block + field + index] = byte
            }
        case 6 where block + 156 < archive.count:
            archive[block + 156] = Array("0123456789xgLKSVZ\u{0}".utf8).randomElement(using: &random) ?? 0
        default:
            // A digit or a separator of a record or a map.
            let text = Array("0123456789-\n,= ".utf8)
            for _ in 0..<50 {
                let spot = Int.random(in: 0..<archive.count, using: &random)
                guard text.contains(archive[spot]) else { continue }
                archive[spot] = text.randomElement(using: &random) ?? 0
                break
            }
        }
        // Mostly with checksums that fit, or nothing behind them is ever reached.
        if Int.random(in: 0..<8, using: &random) > 0 {
            for block in stride(from: 0, to: archive.count - 511, by: 512) where archive[block + 155] == 0x20
            {
                var sum = 256
                for index in block..<(block + 148) { sum += Int(archive[index]) }
                for index in (block + 156)..<(block + 512) { sum += Int(archive[index]) }
                archive.replaceSubrange((block + 148)..<(block + 154), with: octal(sum, 6).suffix(6))
            }
        }
    }
}
