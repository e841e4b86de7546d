import VarveArchive

/// Takes an input apart into choices; at its end every choice is the first one.
struct FuzzInput {
    private var rest: ArraySlice<UInt8>
    init(_ bytes: [UInt8]) { rest = bytes[...] }

    var isEmpty: Bool { rest.isEmpty }
    mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }
    mutating func pick<T>(_ choices: [T]) -> T { choices[Int(byte()) % choices.count] }
    mutating func bytes(_ count: Int) -> [UInt8] {
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }
    mutating func all() -> [UInt8] { bytes(rest.count) }
}

/// Lends bytes in runs of one length, each in memory of its own that is overwritten and freed at the next call, so that
/// a reader that keeps a run too long is found out.
@safe
final class FuzzSource: ByteSource {
    private var rest: ArraySlice<UInt8>
    private let length: Int
    private var lent: UnsafeMutableRawBufferPointer?

    init(_ bytes: [UInt8], run length: Int) {
        rest = bytes[...]
        self.length = length
    }

    deinit { unsafe lent?.deallocate() }

    var isAtEnd: Bool { rest.isEmpty }

    func next() -> UnsafeRawBufferPointer {
        if let old = unsafe lent {
            unsafe old.initializeMemory(as: UInt8.self, repeating: 0xee)
            unsafe old.deallocate()
        }
        let run = rest.prefix(length)
        rest = rest.dropFirst(length)
        let new = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, run.count), alignment: 1)
        unsafe new.copyBytes(from: run)
        unsafe lent = new
        return unsafe UnsafeRawBufferPointer(rebasing: new[..<run.count])
    }
}

final class FuzzSink: ByteSink {
    private(set) var bytes: [UInt8] = []
    func write(_ piece: UnsafeRawBufferPointer) { unsafe bytes.append(contentsOf: piece) }
    func finish() {}
}
