/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): the same numbers
/// for the same seed on every machine and in every version of the standard library.
package struct HistoryRandom: Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }

    /// A number in `0 ..< bound`; 0 if `bound` is not positive. The bias of the remainder does not matter
    /// here.
    package mutating func below(_ bound: Int) -> Int {
        bound > 0 ? Int(truncatingIfNeeded: next() % UInt64(bound)) : 0
    }

    /// True in `percent` of 100 cases.
    package mutating func chance(_ percent: Int) -> Bool { below(100) < percent }

    package mutating func pick<Element>(_ elements: [Element]) -> Element? {
        elements.isEmpty ? nil : elements[below(elements.count)]
    }

    /// One of the elements, each as likely as its weight.
    package mutating func pick<Element>(weighted elements: [(Element, Int)]) -> Element? {
        var left = below(elements.reduce(0) { $0 + $1.1 })
        for (element, weight) in elements {
            if left < weight { return element }
            left -= weight
        }
        return elements.last?.0
    }

    /// `count` bytes, the same for the same seed.
    package static func bytes(_ count: Int, seed: Int64) -> [UInt8] {
        var random = HistoryRandom(seed: UInt64(bitPattern: seed))
        // Word by word into memory: byte by byte takes most of the time of a history in a debug build.
        return unsafe Array(unsafeUninitializedCapacity: max(count, 0)) { buffer, used in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            while used < raw.count {
                unsafe withUnsafeBytes(of: random.next().littleEndian) { word in
                    let length = min(8, raw.count - used)
                    unsafe UnsafeMutableRawBufferPointer(rebasing: raw[used..<(used + length)])
                        .copyMemory(from: UnsafeRawBufferPointer(rebasing: word[..<length]))
                    used += length
                }
            }
        }
    }
}
