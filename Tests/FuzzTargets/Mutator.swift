import TestSupport

/// Changes inputs at random, the same way for the same seed; for where there is no libFuzzer.
package struct Mutator {
    private var random: HistoryRandom
    /// Inputs to cut and paste from.
    private let corpus: [[UInt8]]

    package init(seed: UInt64, corpus: [[UInt8]]) {
        random = HistoryRandom(seed: seed)
        self.corpus = corpus
    }

    package mutating func next() -> [UInt8] {
        var bytes = random.pick(corpus) ?? []
        for _ in 0...random.below(4) { mutate(&bytes) }
        return bytes
    }

    private static let numbers: [[UInt8]] = [
        [0], [0xff], [0x7f], [0x80], [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 0, 0, 0, 0, 0],
        [0x80, 0, 0, 0, 0, 0, 0, 1], Array("77777777777".utf8), Array("9223372036854775807".utf8),
        Array("-1".utf8),
        Array("1e999".utf8), Array("..".utf8), Array("/".utf8), Array("\"".utf8), Array("[[[[[[[[".utf8),
        Array("\n".utf8),
    ]

    private mutating func mutate(_ bytes: inout [UInt8]) {
        let at = random.below(bytes.count + 1)
        let end = min(bytes.count, at + 1 + random.below(random.chance(50) ? 8 : 512))
        switch random.below(8) {
        case 0 where at < bytes.count: bytes[at] ^= 1 << UInt8(random.below(8))
        case 1 where at < bytes.count: bytes[at] = UInt8(random.below(256))
        case 2: bytes.removeSubrange(at...)
        case 3: bytes.removeSubrange(at..<end)
        case 4: bytes.insert(contentsOf: Array(bytes[at..<end]), at: at)
        case 5:
            let number = random.pick(Self.numbers) ?? []
            bytes.replaceSubrange(at..<min(bytes.count, at + number.count), with: number)
        case 6:
            let other = random.pick(corpus) ?? []
            let from = random.below(other.count + 1)
            bytes.insert(contentsOf: other[from..<min(other.count, from + 1 + random.below(600))], at: at)
        default: bytes.insert(contentsOf: (0..<random.below(9)).map { _ in UInt8(random.below(256)) }, at: at)
        }
        if bytes.count > 1 << 16 { bytes.removeSubrange((1 << 16)...) }
    }
}
